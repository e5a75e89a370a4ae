"""The built-in suite ``instructions``: requests whose form a program can check, such as a number of sentences.

Each row of the table has one or two conditions in words; {n} is a number that the changed-number variant replaces. The
paraphrase makes the same request in other words.
"""

from __future__ import annotations

from typing import Any

from edgedistill.verify.types import Check, Message, Prompt, Suite, SuiteSampling

_Row = tuple[str, str, str, tuple[dict[str, Any], ...], tuple[int, int] | None]

# (id, request, the same in other words, checks, (n, other n) or None). In checks, n stands for the number.
ROWS: tuple[_Row, ...] = (
    (
        "words-at-least",
        "Describe a busy harbour in at least {n} words.",
        "Write {n} words or more about what can be seen in a busy harbour.",
        ({"kind": "words-at-least"},),
        (60, 90),
    ),
    (
        "words-at-most",
        "Explain what a bridge is for. Use no more than {n} words.",
        "In {n} words or fewer, say why people build bridges.",
        ({"kind": "words-at-most"},),
        (25, 15),
    ),
    (
        "sentences",
        "Write exactly {n} sentences about rain.",
        "Tell me about rain in {n} sentences, not more and not fewer.",
        ({"kind": "sentences"},),
        (3, 5),
    ),
    (
        "paragraphs",
        "Write about gardens in exactly {n} paragraphs, with an empty line between paragraphs.",
        "Give me a text on gardens. It must have {n} paragraphs, and an empty line must separate them.",
        ({"kind": "paragraphs"},),
        (2, 3),
    ),
    (
        "lines",
        "Write a poem about the night that has exactly {n} lines and no empty lines.",
        "Compose {n} lines of verse about the night. Leave no line empty.",
        ({"kind": "lines"},),
        (4, 6),
    ),
    (
        "bullets",
        "List exactly {n} things to take on a hike as bullet points that start with a hyphen.",
        "What should I take on a hike? Answer with {n} bullet points, each of which begins with a hyphen.",
        ({"kind": "bullets"},),
        (4, 6),
    ),
    (
        "numbered-list",
        "Give the steps for making tea as a numbered list with exactly {n} entries, like 1. and 2.",
        "How is tea made? Number the steps 1., 2. and so on, and use {n} of them.",
        ({"kind": "numbered-list"},),
        (4, 5),
    ),
    (
        "lowercase",
        "Describe a cat using only lowercase letters.",
        "Write about a cat. No capital letter may appear in your answer.",
        ({"kind": "lowercase"},),
        None,
    ),
    (
        "uppercase",
        "Warn people about a wet floor. Use only capital letters.",
        "Write a warning about a wet floor in which every letter is a capital.",
        ({"kind": "uppercase"},),
        None,
    ),
    (
        "contains",
        "Write about a train journey and use the words window, ticket and mountain.",
        "Tell a story of a train journey in which the words ticket, mountain and window occur.",
        ({"kind": "contains", "words": ("window", "ticket", "mountain")},),
        None,
    ),
    (
        "avoids",
        "Describe the sea without the words water, blue and wave.",
        "What is the sea like? Do not use any of these words: wave, water, blue.",
        ({"kind": "avoids", "words": ("water", "blue", "wave")},),
        None,
    ),
    (
        "word-count",
        "Write about a family and use the word home exactly {n} times.",
        "Tell me something about a family. The word home must occur {n} times, not more and not fewer.",
        ({"kind": "word-count", "word": "home"},),
        (3, 2),
    ),
    (
        "starts-with",
        "Explain why leaves fall. Begin your answer with the words: In autumn",
        "Why do leaves fall? The first words of your answer must be: In autumn",
        ({"kind": "starts-with", "text": "In autumn"},),
        None,
    ),
    (
        "ends-with",
        "Thank a neighbour for help. End your answer with this sentence and nothing after it: See you on Sunday.",
        "Write a note of thanks to a neighbour. Its last words must be: See you on Sunday.",
        ({"kind": "ends-with", "text": "See you on Sunday."},),
        None,
    ),
    (
        "quoted",
        "Give a short motto for a bakery. Put your whole answer in double quotation marks.",
        "Invent a motto for a bakery, and wrap the entire answer in double quotation marks.",
        ({"kind": "quoted"},),
        None,
    ),
    (
        "no-commas",
        "Describe your ideal weekend without using a single comma.",
        "What would a perfect weekend be? Your answer must not have any commas.",
        ({"kind": "no-commas"}, {"kind": "words-at-least", "n": 10}),
        None,
    ),
    (
        "no-digits",
        "Tell me how many days a week has. Do not write any digits.",
        "How many days are in a week? Spell numbers out; digits are not allowed.",
        ({"kind": "no-digits"},),
        None,
    ),
    (
        "no-letter",
        "Write one sentence about the sun that does not have the letter o.",
        "Say something about the sun in a sentence without the letter o.",
        ({"kind": "no-letter", "letter": "o"}, {"kind": "sentences", "n": 1}),
        None,
    ),
    (
        "json",
        "Describe a car as a JSON object with exactly the keys color, doors and speed. Write nothing else.",
        "Give me a car in JSON, one object whose only keys are speed, color and doors, and no other text.",
        ({"kind": "json", "keys": ("color", "doors", "speed")},),
        None,
    ),
    (
        "title",
        "Write a short text about winter. Begin with a title in double angle brackets, like <<title>>.",
        "Give me a few sentences about winter under a title. The title comes first and stands in << and >>.",
        ({"kind": "title"},),
        None,
    ),
    (
        "placeholders",
        "Write an invitation with at least {n} placeholders in square brackets, such as [name].",
        "Draft an invitation to be filled in later: mark {n} or more gaps in square brackets, such as [date].",
        ({"kind": "placeholders"},),
        (3, 5),
    ),
    (
        "separator",
        "Give two different slogans for a bicycle shop and put *** between them.",
        "I need two slogans for a bicycle shop. Separate the first from the second with ***.",
        ({"kind": "separator", "text": "***"},),
        None,
    ),
    (
        "one-of",
        "Is a whale a fish? Answer with one of these and nothing else: yes, no, unsure",
        "Would you call a whale a fish? Your whole answer must be yes, no or unsure.",
        ({"kind": "one-of", "options": ("yes", "no", "unsure")},),
        None,
    ),
    (
        "comma-list",
        "Name exactly {n} colors, separated by commas, on one line.",
        "Write one line with {n} colors and commas between them.",
        ({"kind": "comma-list"}, {"kind": "lines", "n": 1}),
        (5, 7),
    ),
    (
        "sentences-lowercase",
        "Write exactly {n} sentences about bread, all in lowercase letters.",
        "Tell me about bread in {n} sentences without any capital letter.",
        ({"kind": "sentences"}, {"kind": "lowercase"}),
        (2, 4),
    ),
    (
        "bullets-contains",
        "List exactly {n} uses of wood as bullet points with hyphens, and mention the word fire.",
        "Which uses does wood have? Give {n} bullet points that begin with hyphens. One must use the word fire.",
        ({"kind": "bullets"}, {"kind": "contains", "words": ("fire",)}),
        (3, 5),
    ),
    (
        "words-at-most-avoids",
        "Describe snow in at most {n} words, without the words cold and white.",
        "What is snow? Use {n} words or fewer, and neither the word white nor the word cold.",
        ({"kind": "words-at-most"}, {"kind": "avoids", "words": ("cold", "white")}),
        (30, 20),
    ),
    (
        "paragraphs-title",
        "Write {n} paragraphs about a lighthouse, separated by empty lines. The first must begin with <<Light>>.",
        "Tell me of a lighthouse in {n} paragraphs with empty lines between them, the first starting with <<Light>>.",
        ({"kind": "paragraphs"}, {"kind": "starts-with", "text": "<<Light>>"}),
        (2, 3),
    ),
    (
        "no-commas-lines",
        "Write exactly {n} lines about the moon. Do not use commas.",
        "The moon, in {n} lines and without commas, please.",
        ({"kind": "lines"}, {"kind": "no-commas"}),
        (3, 5),
    ),
    (
        "quoted-words",
        "Answer in double quotation marks and with at least {n} words: what makes a good friend?",
        "What makes a good friend? Use {n} words or more and put the whole answer in double quotation marks.",
        ({"kind": "quoted"}, {"kind": "words-at-least"}),
        (20, 30),
    ),
)

_WITH_NUMBER = {
    "words-at-least", "words-at-most", "sentences", "paragraphs", "lines", "bullets", "numbered-list", "word-count",
    "placeholders", "comma-list",
}  # fmt: skip


def instruction_suite() -> Suite:
    """The suite; prompts that state a number have a changed-number variant."""
    prompts: list[Prompt] = []
    variants: list[Prompt] = []
    for row_id, request, paraphrase, checks, numbers in ROWS:
        n, other = numbers or (None, None)
        prompts.append(_prompt(row_id, request, checks, n))
        variants.append(_prompt(f"{row_id}/paraphrase", paraphrase, checks, n, of=row_id))
        if other is not None:
            variants.append(_prompt(f"{row_id}/changed-number", request, checks, other, of=row_id))
    variants.append(Prompt("empty", (Message("user", ""),), extract="text", variant="empty"))
    return Suite("instructions", tuple(prompts), tuple(variants), SuiteSampling(max_new_tokens=512))


def _prompt(
    prompt_id: str, request: str, checks: tuple[dict[str, Any], ...], n: int | None, of: str | None = None
) -> Prompt:
    variant = None if of is None else "paraphrase" if prompt_id.endswith("/paraphrase") else "changed-number"
    return Prompt(
        id=prompt_id,
        messages=(Message("user", request if n is None else request.replace("{n}", str(n))),),
        extract="checks",
        tags=tuple(str(check["kind"]) for check in checks),
        checks=tuple(_check(check, n) for check in checks),
        variant_of=of,
        variant=variant,  # type: ignore[arg-type]
    )


def _check(table: dict[str, Any], n: int | None) -> Check:
    """A check of a row; a check that counts gets the row's number unless it has its own."""
    parameters = {key: value for key, value in table.items() if key != "kind"}
    if n is not None and table["kind"] in _WITH_NUMBER and "n" not in parameters:
        parameters["n"] = n
    return Check(table["kind"], tuple(sorted(parameters.items())))
