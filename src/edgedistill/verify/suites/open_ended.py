"""The built-in suite ``open-ended``: requests without a right answer, for diversity and the audit of collapse.

The answer of a sample is its whole text; case and white space do not count.
"""

from __future__ import annotations

from edgedistill.verify.types import Message, Prompt, Suite, SuiteSampling, Variant

SUBJECTS = (
    "a lighthouse", "the first day of school", "a lost key", "a market in the morning", "an old map", "two neighbours",
    "a snowstorm", "a violin", "the last train", "a garden behind a wall", "a letter without a name", "a small boat",
)  # fmt: skip

# (id, request, the same in other words); {s} a subject, {n} a number that the changed-number variant replaces
FORMS = (
    ("story", "Write {n} sentences of a story about {s}.", "Tell me a story about {s}. It should have {n} sentences."),
    ("names", "Invent {n} titles for a book about {s}.", "A book about {s} needs a title. Suggest {n} of them."),
    ("questions", "Ask {n} questions about {s}.", "Which {n} questions would you ask about {s}?"),
)
_NUMBERS = ((3, 6), (4, 2), (5, 3))


def open_ended_suite() -> Suite:
    """The suite: 36 prompts, each with a paraphrase and a changed number."""
    prompts: list[Prompt] = []
    variants: list[Prompt] = []
    for index, subject in enumerate(SUBJECTS):
        for (form, request, paraphrase), (n, other) in zip(FORMS, _NUMBERS, strict=True):
            prompt_id = f"{form}-{index + 1:02}"
            prompts.append(_prompt(prompt_id, request, subject, n, form))
            variants.append(_prompt(f"{prompt_id}/paraphrase", paraphrase, subject, n, form, prompt_id, "paraphrase"))
            variants.append(
                _prompt(f"{prompt_id}/changed-number", request, subject, other, form, prompt_id, "changed-number")
            )
    variants.append(Prompt("empty", (Message("user", ""),), extract="text", variant="empty"))
    return Suite("open-ended", tuple(prompts), tuple(variants), SuiteSampling(max_new_tokens=256))


def _prompt(
    prompt_id: str, request: str, subject: str, n: int, form: str, of: str | None = None, variant: Variant | None = None
) -> Prompt:
    text = request.replace("{s}", subject).replace("{n}", str(n))
    return Prompt(prompt_id, (Message("user", text),), extract="text", tags=(form,), variant_of=of, variant=variant)
