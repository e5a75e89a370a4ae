from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import chat_templates
import pytest

from edgedistill.errors import GenerationError, TemplateError
from edgedistill.runtime.text import chat_template as template_module
from edgedistill.runtime.text import chat_template_worker as worker
from edgedistill.runtime.text.chat_template import ChatTemplate, PassThrough
from edgedistill.runtime.text.messages import plain_messages
from edgedistill.runtime.text.reasoning import opened_by

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("new_helpers")
SPECIAL = {"bos_token": "<bos>", "eos_token": "<|im_end|>"}
USER = [{"role": "user", "content": "What is <b>2 + 3</b>?\n'Say' \"it\" — é 数 🚀"}]
CONVERSATIONS: list[list[dict[str, Any]]] = [
    USER,
    [{"role": "system", "content": "Be brief. "}, *USER],
    [
        *USER,
        {"role": "assistant", "content": "<think>\n2 + 3 is 5\n</think>\n\nIt is 5."},
        {"role": "user", "content": "Sure?"},
    ],
]


@pytest.fixture
def opened() -> Iterator[Any]:
    made: list[ChatTemplate] = []

    def make(source: str, **kwargs: Any) -> ChatTemplate:
        made.append(ChatTemplate(source, special_tokens=SPECIAL, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def by_transformers(source: str, messages: list[dict[str, Any]], **kwargs: Any) -> str:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    rendered, _ = utils.render_jinja_template([messages], chat_template=source, **SPECIAL, **kwargs)
    return str(rendered[0])


@pytest.mark.parametrize("name", chat_templates.ALL)
def test_parity_with_transformers(name: str, opened: Any) -> None:
    source = chat_templates.ALL[name]
    template = opened(source)
    for messages in CONVERSATIONS:
        for add in (True, False):
            for thinking in (None, True, False):
                extra = {} if thinking is None else {"enable_thinking": thinking}
                expected = by_transformers(source, messages, add_generation_prompt=add, **extra)
                assert template.render(messages, add_generation_prompt=add, **extra) == expected


def test_parity_with_tools_and_parts(opened: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "<é> & more", "parameters": {}}}]
    expected = by_transformers(chat_templates.QWEN3, USER, tools=tools, add_generation_prompt=True)
    assert opened(chat_templates.QWEN3).render(USER, tools=tools) == expected
    parts = [{"role": "user", "content": [{"type": "text", "text": " hi "}, {"type": "text", "text": "there"}]}]
    expected = by_transformers(chat_templates.GEMMA, parts, add_generation_prompt=True)
    assert opened(chat_templates.GEMMA).render(parts) == expected


REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<turn>{{ m.role }}: {{ m.content | trim }}</turn>{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}{% endfor %}"
READS_PARTS = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% endif %}{% endfor %};{% endfor %}"
)


def test_the_role_developer_is_the_system(opened: Any) -> None:
    """OpenAI's newer name; templates drop messages of a role that they do not know."""
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert opened(READS_PARTS).render(plain_messages(messages)) == "system: Be brief.;user: Why?;"


def test_a_system_prompt_that_a_template_refuses_or_leaves_out_goes_before_the_first_question(opened: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "And?"},
    ]
    expected = "<turn>user: Be brief.\n\nWhy?</turn><turn>assistant: So.</turn><turn>user: And?</turn>"
    assert opened(REFUSES_SYSTEM).render(messages) == expected
    assert opened(DROPS_SYSTEM).render(messages) == "[user] Be brief.\n\nWhy?[assistant] So.[user] And?"
    assert opened(REFUSES_SYSTEM).render(messages[:1]) == "<turn>user: Be brief.</turn>"
    with pytest.raises(TemplateError, match="only users"):
        opened("{{ raise_exception('only users') }}").render(messages)


FIRST_ONLY = (
    "{% if messages[0].role == 'system' %}<s>{{ messages[0].content }}</s>{% endif %}"
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('only first') }}"
    "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)


def _said(*turns: str) -> list[dict[str, str]]:
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


@pytest.mark.parametrize(
    ("turns", "first_only", "strict"),
    [
        (("S one", "S two", "U q"), "<s>one\n\ntwo</s><user>q", "<system>one\n\ntwo<user>q"),
        (
            ("S one", "U q", "A r", "S two", "U s"),
            "<s>one</s><user>q<assistant>r<user>two\n\ns",
            "<system>one<user>q<assistant>r<user>two\n\ns",
        ),
        (("U q", "A r", "S 2", "S 3", "U s"), *["<user>q<assistant>r<user>2\n\n3\n\ns"] * 2),
        (("U q", "S two"), "<user>q<user>two", "<user>q<user>two"),
        (("S one", "S two"), "<s>one\n\ntwo</s>", "<system>one\n\ntwo"),
    ],
)  # fmt: skip
def test_no_system_message_is_left_out(turns: tuple[str, ...], first_only: str, strict: str, opened: Any) -> None:
    """Templates that know one, at the beginning, get the others there, or before the question that they precede."""
    messages = _said(*turns)
    assert opened(FIRST_ONLY).render(messages) == first_only
    assert opened(STRICT).render(messages) == strict
    free = opened("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}").render(messages)
    assert free.count("<system>") == sum(turn.startswith("S") for turn in turns), "as they are where that is taken"


def test_contents_take_the_shape_that_a_template_reads(opened: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    question = {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]}
    assert opened(READS_PARTS).render([system, {"role": "user", "content": "Why?"}]) == "system: Be brief.;user: Why?;"
    assert opened(DROPS_SYSTEM).render([question]) == "[user] Why?"
    assert opened(REFUSES_SYSTEM).render([system, question]) == "<turn>user: Be brief.\n\nWhy?</turn>"
    assert PassThrough().render([question]) == "Why?"
    # What a template changes on purpose is left to it.
    shouts = opened("{% for m in messages %}{{ m.content | upper }}{% endfor %}")
    assert shouts.render([{"role": "user", "content": "why?"}]) == "WHY?"


def test_a_template_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    environment, made = worker.make_environment(), list[str]()
    compiled: dict[str, Any] = {}
    compile_ = environment.from_string

    def from_string(source: str) -> Any:
        made.append(source)
        return compile_(source)

    monkeypatch.setattr(environment, "from_string", from_string)
    for source, name in (("a {{ x }}", "1"), ("a {{ x }}", "2"), ("b {{ x }}", "3"), ("b {{ x }}", "4")):
        request = {"template": source, "variables": {"x": name}, "limit": 100}
        assert worker.render(environment, request, compiled) == {"text": f"{source[0]} {name}"}
    assert made == ["a {{ x }}", "b {{ x }}"]


def test_thinking_can_be_turned_off(opened: Any) -> None:
    qwen = opened(chat_templates.QWEN3)
    assert qwen.render(USER, enable_thinking=False).endswith("<think>\n\n</think>\n\n")
    assert opened_by(qwen.render(USER, enable_thinking=False)) is None
    assert opened_by(opened(chat_templates.SMOLLM3_LIKE).render(USER)) is not None


ESCAPES = [
    "{{ messages.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception.__globals__['sys'].modules }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ '{0.__class__.__mro__}'.format(1) }}",
    "{% set x = messages[0].update({'role': 1}) %}",
    "{{ (messages | attr('__class__')).mro() }}",
    "{{ messages | map(attribute='__class__') | first }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_escapes_are_refused(source: str, opened: Any) -> None:
    with pytest.raises(TemplateError, match=r"chat template.*chat_template\.jinja"):
        opened(source).render(USER)


ENDLESS = [
    "{% for i in range(10**12) %}x{% endfor %}",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10 ** (10 ** 9) }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{{ 'a'.ljust(10**10) }}{{ 'a' | center(10**10) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ '%10000000000d' % 1 }}",
    "{% set b = 'x' * 10**7 %}{% for i in range(100000) %}{{ b }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
]


@pytest.mark.parametrize("source", ENDLESS, ids=range(len(ENDLESS)))
def test_endless_templates_end(source: str, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_module, "GRACE_SECONDS", 0.0)
    template = opened(source, deadline_s=0.5)
    with pytest.raises(TemplateError, match="chat template"):
        template.render(USER)


def test_a_stopped_template_can_be_asked_again(opened: Any) -> None:
    template = opened(
        "{% if messages|length > 1 %}{{ 10 ** (10 ** 9 * messages|length) }}{% endif %}{{ messages[0].content }}",
        deadline_s=1.0,
    )
    with pytest.raises(TemplateError, match="did not finish"):
        template.render([*USER, *USER])
    assert template.render(USER) == USER[0]["content"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}{{ m.content }}", r"cannot be rendered: line 1"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 1 }}", "cannot be rendered"),
        ("{{ nothing.at.all }}", "undefined"),
    ],
)
def test_broken_templates_say_why(source: str, message: str, opened: Any) -> None:
    with pytest.raises(TemplateError, match=message):
        opened(source).render(USER)


def test_limits_of_size(monkeypatch: pytest.MonkeyPatch, opened: Any) -> None:
    with pytest.raises(TemplateError, match="1000001 characters"):
        ChatTemplate("x" * 1_000_001)
    monkeypatch.setattr(template_module, "MAX_PROMPT_CHARS", 10)
    with pytest.raises(TemplateError, match="renders 11 characters"):
        opened("{{ 'a' * 11 }}").render(USER)


@pytest.mark.parametrize(
    "bad", [[], [{"content": "x"}], [{"role": "user"}], [{"role": "user", "content": 3}], ["hello"]]
)
def test_malformed_messages(bad: Any, opened: Any) -> None:
    with pytest.raises(GenerationError, match=r"essage"):
        opened(chat_templates.CHATML).render(bad)
    with pytest.raises(GenerationError, match=r"essage"):
        PassThrough().render(bad)


def test_one_template_serves_many_threads(opened: Any) -> None:
    template = opened(chat_templates.CHATML)
    results: dict[int, str] = {}

    def ask(i: int) -> None:
        results[i] = template.render([{"role": "user", "content": f"number {i}"}])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"number {i}<|im_end|>" in results[i] for i in range(8))


def test_pass_through() -> None:
    assert PassThrough().render(USER) == USER[0]["content"]


def test_no_process_is_left_behind() -> None:
    """The helper ends with its parent, closed or not, and prints nothing."""
    code = (
        "from edgedistill.runtime.text.chat_template import ChatTemplate\n"
        "t = ChatTemplate('{{ messages[0].content }}')\n"
        "print(t.render([{'role': 'user', 'content': 'é'}]) == 'é', t._worker._process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    ok, pid = done.stdout.split()
    assert (ok, done.stderr) == ("True", "")
    psutil = pytest.importorskip("psutil")
    assert not psutil.pid_exists(int(pid))
