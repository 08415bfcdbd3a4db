# SPDX-License-Identifier: Apache-2.0
"""The modes of chat templates, and prompts that survive them or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from support import templates
from support.templates import PLAIN, make_tokenizer

from cintervene.errors import ArgumentError
from cintervene.prompts.chat import answer_text, render
from cintervene.prompts.spelling import encode_text
from cintervene.prompts.template import ChatTokenizer, chat_tokenizer
from cintervene.prompts.thinking import after_thinking

USER = "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
# Templates end without their last line end, as Jinja does.
BARE = USER.rstrip()
EMPTY = "<think>\n\n</think>\n\n"


def ways(chat: ChatTokenizer, prompt: str = "Hi.") -> set[str]:
    return {chat.decode(before + begun) for before, begun in chat.ways(prompt)}


@pytest.mark.parametrize(
    ("template", "modes", "expected"),
    [
        (None, [{}], {"Hi.\n", "Hi.\n<think>\n", "Hi.\n" + EMPTY}),
        (PLAIN, [{}], {USER, USER + "<think>\n", USER + EMPTY}),
        (
            templates.QWEN3,
            [{}, {"enable_thinking": False}],
            {USER, USER + "<think>\n", USER + EMPTY},
        ),
        (templates.R1, [{}], {USER + "<think>\n", USER + EMPTY}),
        (
            templates.DEEPSEEK,
            [{}, {"thinking": True}],
            {USER + "</think>", USER + "<think>", USER + EMPTY},
        ),
    ],
)
def test_modes_and_think_blocks_of_templates(
    template: str, modes: list[dict[str, Any]], expected: set[str]
) -> None:
    chat = chat_tokenizer(make_tokenizer(template))
    assert list(chat.modes) == modes
    assert ways(chat) == expected


@pytest.mark.parametrize("template", [PLAIN, templates.PARTS])
def test_what_was_said_before_is_rendered_as_turns(template: str) -> None:
    tokenizer = make_tokenizer(template)
    turns = [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hi!")]
    text = tokenizer.decode(render(tokenizer, "Why?", turns=turns))
    written = [f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns]
    assert text.startswith("".join(written))
    assert text.count("Why?") == 1
    assert render(tokenizer, "Why?", turns=()) == render(tokenizer, "Why?")


def test_without_a_system_role_its_text_comes_before_the_first_message() -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
    )
    tokenizer = make_tokenizer(refusing)
    text = tokenizer.decode(render(tokenizer, "Why?", turns=[("system", "Be brief.")]))
    merged = tokenizer.decode(render(tokenizer, "Be brief.\n\nWhy?"))
    assert text == merged
    turns = [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hi!")]
    text = tokenizer.decode(render(tokenizer, "Why?", turns=turns))
    assert "user\nBe brief.\n\nHello.<|im_end|>" in text
    assert "user\nWhy?<|im_end|>" in text


def test_without_a_template_turns_are_lines() -> None:
    tokenizer = make_tokenizer(None)
    turns = [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hi!")]
    text = tokenizer.decode(render(tokenizer, "Why?", turns=turns))
    assert text == "Be brief.\nHello.\nHi!\nWhy?\n"


@pytest.mark.parametrize(
    ("template", "modes"),
    [
        (templates.SMOLLM3, [{}, {"enable_thinking": False}]),
        (templates.GRANITE, [{}, {"thinking": True}]),
        (templates.COMPARED, [{}, {"style": "deep"}, {"style": "quick"}]),
        # What is printed as it comes, such as a name, is no mode.
        (
            templates.EFFORT,
            [{}, {"reasoning_effort": "low"}, {"reasoning_effort": "high"}],
        ),
        (templates.DATED, [{}]),
    ],
)
def test_modes_of_templates_that_change_elsewhere(
    template: str, modes: list[dict[str, Any]]
) -> None:
    chat = chat_tokenizer(make_tokenizer(template))
    assert list(chat.modes) == modes
    rendered = {tuple(one.render("Hi.")) for one in chat.each_mode().values()}
    assert len(rendered) == len(modes)


def test_texts_are_in_all_modes_by_turns_and_each_always_in_the_same() -> None:
    tokenizer = make_tokenizer(templates.QWEN3)
    chat = chat_tokenizer(tokenizer)
    texts = [f"Say {number}." for number in range(64)]
    empty = [chat.decode(render(chat, text)).endswith(EMPTY) for text in texts]
    assert 16 <= sum(empty) <= 48
    assert empty == [chat.decode(render(chat, t)).endswith(EMPTY) for t in texts]
    # What is made of a text can have its turn.
    alike = [render(chat, text + " Now!", like=text) for text in texts]
    assert empty == [chat.decode(ids).endswith(EMPTY) for ids in alike]
    # Outside, a tokenizer renders as transformers does.
    plain = [tokenizer.decode(render(tokenizer, text)) for text in texts]
    assert not any(text.endswith(EMPTY) for text in plain)


def test_the_first_way_is_that_of_render_and_blocks_belong_to_the_answer() -> None:
    chat = chat_tokenizer(make_tokenizer(templates.QWEN3))
    for text in ("Hi.", "Hello.", "Well?", "Who?"):
        found = chat.ways(text)
        assert found[0][0] + found[0][1] == chat.render(text)
        assert {chat.decode(begun) for _, begun in found} == {"", "<think>\n", EMPTY}


def test_options_make_the_only_mode() -> None:
    tokenizer = make_tokenizer(templates.QWEN3)
    chat = chat_tokenizer(tokenizer, {"enable_thinking": False})
    assert chat.modes == ({"enable_thinking": False},)
    assert chat.decode(chat.render("Hi.")) == USER + EMPTY
    assert chat_tokenizer(chat) is chat
    assert chat_tokenizer(chat, {"enable_thinking": True}).modes != chat.modes
    several = make_tokenizer({"rag": PLAIN, "tool_use": PLAIN})
    assert render(chat_tokenizer(several, {"chat_template": "rag"}), "Hi.")


@pytest.mark.parametrize(
    ("template", "options", "message"),
    [
        (templates.QWEN3, {"enable_thinkin": True}, "has enable_thinking"),
        (templates.QWEN3, {"messages": []}, "got 'messages'"),
        (None, {"thinking": True}, "none at all"),
        (PLAIN, {"chat_template": "rag"}, "not several"),
        ({"a": PLAIN, "b": PLAIN}, None, "named 'a', 'b' and none named 'default'"),
        ({"a": PLAIN, "b": PLAIN}, {"chat_template": "c"}, "none named 'c'"),
        ("{{ raise_exception('no\nusers') }}", None, "fails on a user's message .'no"),
        ("{{ messages + 'x' }}", None, "fails on a user's message"),
        ("{{ messages[0].a.b }}", None, "fails on a user's message"),
        ("{% if %}", None, "tokenizer: its chat template"),
        (
            "{% for m in messages %}{{ m['text'] }}{% endfor %}",
            None,
            "loses the prompt",
        ),
        (PLAIN.replace("'] }}<", "'] | replace('e', '') }}<"), None, "loses"),
        (PLAIN + templates.TURN, None, "writes the prompt 2 times"),
    ],
)
def test_what_loses_a_prompt_is_refused_by_name(
    template: Any, options: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        chat_tokenizer(make_tokenizer(template), options)
    assert str(caught.value).isprintable()
    if options is None:
        with pytest.raises(ArgumentError, match=message):
            render(make_tokenizer(template), "Hi.")


@pytest.mark.parametrize(
    "template",
    [
        templates.PARTS,
        {"default": PLAIN, "tool_use": "x"},
        [{"name": "default", "template": PLAIN}],
        {"only": PLAIN},
    ],
)
def test_templates_of_other_forms_render_the_prompt(template: Any) -> None:
    tokenizer = make_tokenizer(template)
    assert tokenizer.decode(render(tokenizer, "Hi.")) in (USER, BARE)
    assert tokenizer.decode(render(chat_tokenizer(tokenizer), "Hi.")) in (USER, BARE)


def test_templates_may_trim_and_change_the_case() -> None:
    template = "{% for m in messages %}[{{ m['content'] | trim | lower }}]{% endfor %}"
    tokenizer = make_tokenizer(template)
    assert tokenizer.decode(render(tokenizer, " Hi  you. ")) == "[hi  you.]"


def test_it_is_always_the_same_day() -> None:
    tokenizer = make_tokenizer(templates.DATED)
    day = "Today is 01 Jan 2026.\n"
    assert tokenizer.decode(render(tokenizer, "Hi.")) == day + USER
    other = chat_tokenizer(tokenizer, {"date_string": "1 May"})
    assert other.decode(other.render("Hi.")).startswith("Today is 1 May.")


def test_a_template_that_is_changed_is_looked_at_again() -> None:
    tokenizer = make_tokenizer(PLAIN)
    assert render(tokenizer, "Hi.")
    tokenizer.chat_template = "{{ 'lost' }}"
    with pytest.raises(ArgumentError, match="loses the prompt"):
        render(tokenizer, "Hi.")


class Ending:
    """A tokenizer that puts begin and end around whatever it is given."""

    def __init__(self, template: str | None) -> None:
        self.inner = make_tokenizer(template, ends=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        return self.inner(text, add_special_tokens=True)


@pytest.mark.parametrize("template", [None, "<s>" + PLAIN])
@pytest.mark.parametrize("kind", [lambda t: make_tokenizer(t, ends=True), Ending])
def test_prompts_begin_once_and_do_not_end(kind: Any, template: str | None) -> None:
    tokenizer = kind(template)
    ids = render(tokenizer, "Hi.")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in ids
    assert encode_text(tokenizer, "Hi.</s>")[-1] == tokenizer.eos_token_id


def test_a_processor_stands_for_its_tokenizer() -> None:
    tokenizer = make_tokenizer(None)
    processor = SimpleNamespace(tokenizer=tokenizer, chat_template=templates.PARTS)
    chat = chat_tokenizer(processor)
    assert chat.decode(chat.render("Hi.")) in (USER, BARE)


def test_templates_with_tokens_that_the_model_has_not_are_refused() -> None:
    chat = chat_tokenizer(make_tokenizer(PLAIN))
    chat.check_fits(len(chat))
    with pytest.raises(ArgumentError, match=r"writes token \d+.*the model has 100 "):
        chat.check_fits(100)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Sorry.", "Sorry."),
        ("<think>\nA user.\n</think>\n\nSorry.", "\n\nSorry."),
        # The block was begun in the prompt.
        ("A user.\n</think>\n\nSorry.", "\n\nSorry."),
        ("<think>\nSorry.", "\nSorry."),
        ("<think>Sorry.</think>\n", "Sorry."),
        ("[THINK]A[/THINK]Sorry.", "Sorry."),
        ("<|START_THINKING|>A<|END_THINKING|>Sorry.", "Sorry."),
        ("<thinking>A</thinking>B</think>C", "C"),
    ],
)
def test_what_is_said_behind_thoughts(answer: str, said: str) -> None:
    assert after_thinking(answer) == said


def test_thoughts_are_told_apart_where_their_marks_are_special() -> None:
    tokenizer = make_tokenizer(PLAIN + "{# [THINK] [/THINK] #}")
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    ids = tokenizer("[THINK]A[/THINK]B</s>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "AB"
    assert after_thinking(answer_text(tokenizer, ids)) == "B"


@pytest.mark.parametrize(
    ("template", "error"),
    [
        (
            "{{ 'a' * 10**8 }}{{ messages[0]['content'] }}",
            "writes 100000000 char",
        ),
        (["a"], "chat templates are"),
        ([{"name": "default"}], "chat templates are"),
    ],
)
def test_hostile_templates_are_refused_by_name(template: Any, error: str) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.chat_template = template
    with pytest.raises(ArgumentError, match=error):
        chat_tokenizer(tokenizer)
