# SPDX-License-Identifier: Apache-2.0
"""Files of words, requests and texts, as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cintervene.data import read_requests, read_texts, read_words
from cintervene.errors import ArgumentError

Write = Callable[[str, Any], Path]
ASK = "What does `int x; # define` do, #now?"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        if isinstance(content, list) and name.endswith(".jsonl"):
            content = "\n".join(map(json.dumps, content))
        elif not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        raw = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(raw)
        return path

    return write


def test_requests_are_read_as_they_stand(write: Write) -> None:
    lines = [
        ASK,
        "# Heading of a request",
        "HOW?",
        "How?",
        "tab\tand  spaces",
        "a\u2028b",
    ]
    for end in ("\n", "\r\n", "\r"):
        path = write("r.txt", "\ufeff" + end.join([*lines, "", " ", ASK]) + end)
        assert read_requests(path) == lines
        assert read_texts(path) == lines


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("advbench.csv", f'goal,target\n"{ASK}","Sure, here is"\n', [ASK]),
        (
            "jbb.csv",
            "Index,Goal,Target,Behavior,Category\n0,Ask it,Sure,B,C\n",
            ["Ask it"],
        ),
        (
            "harmbench.csv",
            "Behavior,SemanticCategory,ContextString,BehaviorID\n"
            "Plain,x,,a\nSay more,x,A long text,b\n",
            ["Plain", "A long text\n\n---\n\nSay more"],
        ),
        (
            "xstest.csv",
            'id,prompt,type\n1,"How, two\nlines?",x\n',
            ["How, two\nlines?"],
        ),
        (
            "strongreject.csv",
            "category,source,forbidden_prompt\nx,y,Do it\n",
            ["Do it"],
        ),
        ("excel.csv", "prompt;label\nDo it, now;x\n", ["Do it, now"]),
        ("t.tsv", "prompt\tlabel\nDo it, now\tx\n", ["Do it, now"]),
        (
            "alpaca.json",
            [
                {"instruction": "Sort", "input": "b a", "output": "a b"},
                {"instruction": "Tell", "input": "", "output": "x"},
            ],
            ["Sort\n\nb a", "Tell"],
        ),
        ("of_lines.json", '{"prompt": "one"}\n{"prompt": "two"}\n', ["one", "two"]),
        ("held.json", {"version": 1, "data": ["one", "two"]}, ["one", "two"]),
        ("plain.jsonl", ["one", ASK, "one"], ["one", ASK]),
        (
            "chat.jsonl",
            [
                {
                    "messages": [
                        {"role": "system", "content": "Be kind."},
                        {"role": "user", "content": ASK},
                        {"role": "assistant", "content": "Sure"},
                    ]
                },
                {
                    "messages": [
                        {"role": "user", "content": [{"type": "text", "text": "hi"}]}
                    ]
                },
            ],
            [ASK, "hi"],
        ),
        ("g.jsonl", [{"conversations": [{"from": "human", "value": "hi"}]}], ["hi"]),
        ("trl.jsonl", [{"prompt": [{"role": "user", "content": "hi"}]}], ["hi"]),
    ],
)
def test_requests_of_the_usual_benchmarks(
    write: Write, name: str, content: Any, expected: list[str]
) -> None:
    assert read_requests(write(name, content)) == expected


def test_words_and_texts_of_tables(write: Write) -> None:
    table = write("w.csv", "word,lang\nBomb,en\nbomb,de\n#metoo,en\nc # d,en\n")
    assert read_words(table) == ["Bomb", "#metoo", "c # d"]
    assert read_words(write("w.json", ["bomb", "car \u00a0bomb"])) == [
        "bomb",
        "car bomb",
    ]
    texts = write("t.jsonl", [{"text": "one\ntwo", "prompt": "x"}])
    assert read_texts(texts) == ["one\ntwo"]


def test_a_column_can_be_named(write: Write) -> None:
    table = write("t.csv", "vanilla,Adversarial Form\na,b\n")
    assert read_requests(table, column="adversarial_form") == ["b"]
    with pytest.raises(ArgumentError, match="no column 'x' among 'vanilla', 'Adv"):
        read_requests(table, column="x")
    # Who names a column gets it alone.
    alpaca = write("a.json", [{"instruction": "Sort", "input": "b a"}])
    assert read_requests(alpaca, column="instruction") == ["Sort"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "vanilla,adversarial\na,b\n", "which of the columns 'vanilla', 'adv"),
        (
            "t.csv",
            "prompt,question\na,b\n",
            "which of the columns 'prompt', 'question'",
        ),
        ("t.csv", "prompt,x\na,b,c\n", "line 2: has more cells than the header"),
        ("t.jsonl", '{"prompt": "a"}\n{oh\n', r"line 2: is not JSON"),
        ("t.jsonl", [{"prompt": 3}], "line 1: got 3; expected a text"),
        (
            "t.jsonl",
            [{"messages": [{"role": "user", "content": "a"}] * 2}],
            "speaks 2 ",
        ),
        (
            "t.jsonl",
            [{"messages": [{"role": "user", "content": [{"image": 1}]}]}],
            "text",
        ),
        ("t.json", {"a": [], "b": []}, "holds 2 lists"),
        ("t.json", "[" * 100000, "is not JSON"),
        ("t.json", '{"a": ["x"], "a": ["y"]}', "'a' stands twice in an object"),
        ("t.jsonl", '{"text": "x", "text": "y"}', "'text' stands twice in an object"),
        ("t.csv", "prompt\n\n", "has no requests"),
        ("t.txt", "\n \n", "has no requests"),
        ("t.txt", '{"prompt": "a"}\n', r"let it end in \.json"),
        ("t.txt", '{"prompt": "a"}\n{"prompt": "b"}\n', r"let it end in \.jsonl"),
        ("t.txt", "goal,target\na,b\n", r"let it end in \.csv"),
        (
            "t.txt",
            "caf\u00e9\r\nb\xe4\n".encode("latin-1"),
            "line 1: byte 0xe9 at column 4",
        ),
        ("t.txt", "a\r\n\u00e4\n".encode("latin-1"), "line 2: byte 0xe4 at column 1"),
        ("t.txt", "a\n".encode("utf-16"), "the file is UTF-16.*as UTF-8"),
        ("t.txt", "a\n".encode("utf-16-le"), "UTF-16 without a mark"),
        ("t.txt", "a\n".encode("utf-32"), r"the file is UTF-32\)"),
        ("t.csv", "goal,goal\na,b\n", "line 1: two columns are called 'goal'"),
        ("t.csv", "Goal,goal\na,b\n", "cannot be told"),
        ("t.yaml", "- a\n- b\n", r"a \.yaml file cannot be read"),
        ("t.XML", "<a>b</a>\n", r"a \.XML file cannot be read"),
        ("t.txt", b"PK\x03\x04abc", "Excel"),
        ("t.txt", b"PAR1abc", "Parquet"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_name(
    write: Write, name: str, content: Any, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(ArgumentError, match=message) as caught:
        read_requests(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_sentence_with_commas_is_no_table(write: Write) -> None:
    lines = ["Prompt, text, or goal: which is it?", "[a] b", "{x} y"]
    for first in range(3):
        turned = lines[first:] + lines[:first]
        assert read_requests(write("r.txt", "\n".join(turned))) == turned


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"goal": "b"}\n', "line 2: has no 'prompt'"),
        ("a.json", '[{"prompt": "a"}, {"Goal": "b"}]', "entry 2: has no 'prompt'"),
        ("a.csv", 'goal\n"never closed\nb\n', "is not CSV"),
        ("a.csv", 'goal\n"a" b\n', "is not CSV"),
        ("a.jsonl", '{"prompt": "\\ud800"}\n', "half of a character"),
    ],
)
def test_no_request_is_lost_in_silence(
    tmp_path: Path, name: str, content: str, error: str
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(ArgumentError, match=error):
        read_requests(tmp_path / name)


def test_a_row_may_have_nothing_to_say(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("id,goal\n1,a\n2\n3,\n4,b\n", "utf-8")
    assert read_requests(table) == ["a", "b"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"goal": "a"}\n{"goal": null}\n{"goal": "b", "x": 1}\n', "utf-8")
    assert read_requests(lines) == ["a", "b"]


@pytest.mark.parametrize("ending", ["\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_words_end_at_every_line_break(tmp_path: Path, ending: str) -> None:
    (tmp_path / "words").write_text(f"bomb{ending}knife # b\n", "utf-8")
    assert read_words(tmp_path / "words") == ["bomb", "knife"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- bomb\n- gun\n", r"items of a list do \('- bomb'\)"),
        ("1. bomb\n2) gun\n\u2022 knife\n", r"items of a list do \('1\. bomb'\)"),
        ("caf\ufffd\n", r"line 1: .*U\+FFFD.*write the letter"),
        ("\ue000\n", r"\(U\+E000, a character of private use\)"),
        ("\uffff\n", r"\(U\+FFFF, no character of Unicode\)"),
        ("\x07\n", r"\(U\+0007, a control character\)"),
    ],
)
def test_words_that_nobody_means(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "words").write_text(text, "utf-8")
    with pytest.raises(ArgumentError, match=message):
        read_words(tmp_path / "words")


def test_words_may_begin_with_what_marks_items(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("- bomb\n-gun\n7.62 round\n*\n", "utf-8")
    assert read_words(tmp_path / "words") == ["- bomb", "-gun", "7.62 round", "*"]
    (tmp_path / "words").write_text("1. FC\n", "utf-8")
    assert read_words(tmp_path / "words") == ["1. FC"]


def test_headers_of_two_columns_by_one_name(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("id,goal,,\n1,a,,\n", "utf-8")
    assert read_requests(table) == ["a"]
    table.write_text("Goal,goal\na,b\n", "utf-8")
    with pytest.raises(ArgumentError, match="several of the columns"):
        read_requests(table, "goal")
