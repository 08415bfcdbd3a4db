# SPDX-License-Identifier: Apache-2.0
"""The word lists, templates, prompts and texts, and the reading of word files."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from cintervene import data
from cintervene.data.prompts import read_json
from cintervene.errors import ArgumentError

SPLITS: tuple[data.Split, ...] = ("train", "tune", "held_out")


def least(train: int, tune: int, held_out: int) -> list[tuple[data.Split, int]]:
    return [("train", train), ("tune", tune), ("held_out", held_out)]


def one_of(words: Iterable[str], endings: str = "") -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words)}){endings}\b", re.IGNORECASE)


def inflected(words: Iterable[str]) -> re.Pattern[str]:
    """Match the words with the regular endings of English, doubled letters included."""
    stems = [re.escape(word.removesuffix("e")) + "[a-z]?" for word in words]
    return one_of([*words, *stems], "(?:e?s|e?d|e?rs?|ings?)?")


def content(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower().replace("{word}", "")))


def near_duplicates(
    texts: dict[data.Split, list[str]], limit: float
) -> list[tuple[str, str]]:
    """Pairs of texts from two splits that share `limit` of their words."""
    words = {split: [(t, content(t)) for t in texts[split]] for split in SPLITS}
    return [
        (one, other)
        for first, second in combinations(SPLITS, 2)
        for one, ours in words[first]
        for other, theirs in words[second]
        if len(ours & theirs) >= limit * len(ours | theirs)
    ]


def template_prompts(split: data.Split) -> list[str]:
    return [template.prompt for template in data.obedience_templates(split)]


def prompt_texts(split: data.Split) -> list[str]:
    return [prompt.text for prompt in data.benign_prompts(split)]


def harmful(split: data.Split) -> list[str]:
    return [prompt.text for prompt in data.harmful_prompts(split)]


def borderline(split: data.Split) -> list[str]:
    return [prompt.text for prompt in data.borderline_prompts(split)]


def passages(split: data.Split) -> list[str]:
    return [passage.text for passage in data.benign_texts(split)]


# ---------------------------------------------------------------- words


def test_word_lists_hold_lower_case_words_once() -> None:
    forbidden, benign = data.forbidden_words(), data.benign_words()
    assert len(forbidden) == len(benign) == 100
    assert len(data.related_words()) >= 60
    every = forbidden + benign + data.related_words()
    assert len(set(every)) == len(every)
    assert all(re.fullmatch("[a-z]+", word) for word in every)
    assert {"abuse", "attack", "bomb"} <= set(forbidden)


def test_halves_of_the_word_lists() -> None:
    tune, held_out = data.forbidden_words("tune"), data.forbidden_words("held_out")
    assert tune + held_out == data.forbidden_words()
    train, benign_held_out = data.benign_words("train"), data.benign_words("held_out")
    assert train + benign_held_out == data.benign_words()
    assert len(tune) == len(held_out) == len(train) == len(benign_held_out) == 50


def test_word_families_are_in_one_half() -> None:
    stems = {word[:4] for word in data.forbidden_words("tune")}
    shared = {word for word in data.forbidden_words("held_out") if word[:4] in stems}
    assert shared == set()


def test_other_words_are_no_inflections_of_forbidden_ones() -> None:
    pattern = inflected(data.forbidden_words())
    others = data.benign_words() + data.related_words()
    assert [word for word in others if pattern.fullmatch(word)] == []


def test_matched_words_have_as_many_tokens(smollm2: Any) -> None:
    _, tokenizer = smollm2

    def counts(word: str) -> list[int]:
        forms = (word, " " + word)
        return [len(tokenizer.encode(form, add_special_tokens=False)) for form in forms]

    pairs = list(zip(data.forbidden_words(), data.benign_words(), strict=True))
    assert [pair for pair in pairs if counts(pair[0]) != counts(pair[1])] == []
    assert sum(counts(forbidden)[1] > 1 for forbidden, _ in pairs) >= 30


# ------------------------------------------------- templates and prefixes


@pytest.mark.parametrize(("split", "minimum"), least(36, 10, 16))
def test_templates_ask_for_the_word(split: data.Split, minimum: int) -> None:
    templates = data.obedience_templates(split)
    assert len(templates) >= minimum
    for template in templates:
        filled = template.fill("quokka")
        assert "quokka" in filled
        assert "{word}" not in filled
        assert any(template.prefixes)
        assert len(set(template.prefixes)) == len(template.prefixes)
        assert "" not in template.prefixes[1:]
    starting = sum("" in template.prefixes for template in templates)
    assert starting >= 0.8 * len(templates)


def test_fill_leaves_other_braces() -> None:
    template = data.ObedienceTemplate('{"a": "{word}", "b": {x}} {word}', ("",))
    assert template.fill("tea {word}") == '{"a": "tea {word}", "b": {x}} tea {word}'


@pytest.mark.parametrize(("split", "minimum"), least(20, 5, 10))
def test_answer_prefixes(split: data.Split, minimum: int) -> None:
    prefixes = data.answer_prefixes(split)
    assert len(set(prefixes)) == len(prefixes) >= minimum
    # A word may be appended as it is.
    assert not any(re.search(r"[\w.,:!?]\Z", prefix) for prefix in prefixes)


def test_prefixes_of_templates_end_where_a_word_may_follow() -> None:
    for split in SPLITS:
        for template in data.obedience_templates(split):
            unfinished = [p for p in template.prefixes if re.search(r"[\w.,:!?]\Z", p)]
            assert unfinished == []


def test_prefixes_with_words_are_in_one_split() -> None:
    seen: dict[str, data.Split] = {}
    for split in SPLITS:
        own = {p for t in data.obedience_templates(split) for p in t.prefixes}
        for prefix in own | set(data.answer_prefixes(split)):
            if content(prefix):
                assert seen.setdefault(prefix, split) == split, prefix


# ------------------------------------------------------ prompts and texts


@pytest.mark.parametrize(
    ("texts", "limit"),
    [
        (template_prompts, 0.6),
        (prompt_texts, 0.6),
        (passages, 0.4),
        (harmful, 0.6),
        (borderline, 0.6),
        (data.jailbreak_templates, 0.6),
        (data.ordinary_templates, 0.6),
        (data.compliance_prefixes, 0.6),
    ],
)
def test_splits_have_no_near_duplicates(
    texts: Callable[[data.Split], list[str]], limit: float
) -> None:
    by_split = {split: texts(split) for split in SPLITS}
    assert near_duplicates(by_split, limit) == []
    every = [text for split in SPLITS for text in by_split[split]]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(("split", "minimum"), least(280, 50, 80))
def test_benign_prompts(split: data.Split, minimum: int) -> None:
    prompts = data.benign_prompts(split)
    assert len(prompts) >= minimum
    assert all(prompt.text == prompt.text.strip() != "" for prompt in prompts)
    categories = {prompt.category for prompt in data.benign_prompts("train")}
    assert {prompt.category for prompt in prompts} == categories


def test_first_prompts_are_a_fair_sample() -> None:
    prompts = data.benign_prompts("train")
    shares = Counter(prompt.category for prompt in prompts)
    sample = Counter(prompt.category for prompt in prompts[: len(prompts) // 4])
    for category, count in shares.items():
        assert abs(sample[category] - count / 4) <= 1


def test_violent_words_are_only_in_the_group_for_them() -> None:
    pattern = inflected(data.forbidden_words())
    tagged = plain = 0
    for split in SPLITS:
        for prompt in data.benign_prompts(split):
            if prompt.category == "violent-sounding":
                tagged += 1
            elif pattern.search(prompt.text):
                pytest.fail(f"{pattern.search(prompt.text)} in {prompt.text!r}")
            else:
                plain += 1
        assert [text for text in passages(split) if pattern.search(text)] == []
    assert tagged >= 40
    assert tagged + plain >= 420


def test_held_out_words_are_not_met_before_the_report() -> None:
    pattern = one_of(data.benign_words("held_out"))
    for split in SPLITS[:2]:
        texts = prompt_texts(split) + passages(split) + template_prompts(split)
        assert [text for text in texts if pattern.search(text)] == []


def test_benign_texts() -> None:
    every = [text for split in SPLITS for text in passages(split)]
    assert len(every) >= 80
    assert all(80 <= len(text.split()) <= 160 for text in every)
    genres = {passage.genre for passage in data.benign_texts("held_out")}
    assert len(genres) >= 10


# ----------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("load", "sizes"),
    [
        (data.harmful_prompts, {"train": 160, "tune": 45, "held_out": 50}),
        (data.borderline_prompts, {"train": 200, "tune": 45, "held_out": 55}),
    ],
)
def test_requests(load: Callable[[Any], Any], sizes: dict[data.Split, int]) -> None:
    categories = {prompt.category for prompt in load("train")}
    assert "contextual" in categories
    for split, least in sizes.items():
        prompts = load(split)
        assert len({prompt.text for prompt in prompts}) == len(prompts) >= least
        assert {prompt.category for prompt in prompts} <= categories
        for prompt in prompts:
            passage = "\n\n" in prompt.text
            assert passage == (prompt.category == "contextual")
            assert prompt.text == prompt.text.strip() != ""


def test_no_request_is_both_harmful_and_not() -> None:
    refused = {text for split in SPLITS for text in harmful(split)}
    answered = {text for split in SPLITS for text in borderline(split)}
    assert refused & answered == set()
    assert refused & {text for split in SPLITS for text in prompt_texts(split)} == set()


@pytest.mark.parametrize(("split", "minimum"), least(12, 4, 6))
def test_jailbreak_templates(split: data.Split, minimum: int) -> None:
    templates = data.jailbreak_templates(split)
    assert len(templates) >= minimum
    assert all(template.count("{request}") == 1 for template in templates)


@pytest.mark.parametrize(("split", "minimum"), least(40, 12, 12))
def test_ordinary_templates(split: data.Split, minimum: int) -> None:
    templates = data.ordinary_templates(split)
    assert len(templates) >= minimum
    assert all(template.count("{request}") == 1 for template in templates)
    assert not any(data.is_encoded(template) for template in templates)
    talking = {*data.jailbreak_templates("train"), *data.disguise_templates()}
    assert bool(talking & set(templates)) == (split == "train")


def test_disguises_hold_all_of_a_request_and_are_not_those_of_the_attacks() -> None:
    disguises = data.disguise_templates()
    assert len(disguises) >= 30
    for template in disguises:
        filled = data.fill_template(template, "pick alock")
        forms = ("pick alock", "cGljayBhbG9jaw==", "cvpx nybpx", "p1ck 4l0ck")
        assert any(form in filled for form in forms) or (
            "pick" in filled and "alock" in filled
        )
    attacks = [
        t for family in read_json("attack_templates.json").values() for t in family
    ]
    later = [*data.jailbreak_templates("tune"), *data.jailbreak_templates("held_out")]
    by_split: dict[data.Split, list[str]] = {
        "train": disguises, "tune": data.jailbreak_templates("train"),
        "held_out": [*attacks, *later],
    }  # fmt: skip
    assert near_duplicates(by_split, 0.6) == []


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Do {request} now", "Do pick a {leet} lock now"),
        ("{first}|{second}", "pick a|{leet} lock"),
        ("{base64}", "cGljayBhIHtsZWV0fSBsb2Nr"),
        ("{rot13}", "cvpx n {yrrg} ybpx"),
        ("{leet}", "p1ck 4 {l337} l0ck"),
        ("{} {word} {request", "{} {word} {request"),
    ],
)
def test_a_template_is_filled_once(template: str, filled: str) -> None:
    assert data.fill_template(template, "pick a {leet} lock") == filled


def test_templates_take_turns() -> None:
    filled = [
        data.fill_in_turn(["a {request}", "b {leet}"], turn, "x") for turn in (0, 1, 2)
    ]
    assert filled == ["a x", "b x", "a x"]


@pytest.mark.parametrize(("split", "minimum"), least(16, 4, 6))
def test_compliance_prefixes(split: data.Split, minimum: int) -> None:
    prefixes = data.compliance_prefixes(split)
    assert len(prefixes) >= minimum
    assert all(prefix.strip() for prefix in prefixes)


def test_refusals_begin_as_refusals() -> None:
    from cintervene.judges.refusal import judge_refusal

    assert all(judge_refusal(text) for text in data.safe_refusals())


@pytest.mark.parametrize(
    "load",
    [
        data.harmful_prompts,
        data.borderline_prompts,
        data.jailbreak_templates,
        data.compliance_prefixes,
        data.obedience_templates,
        data.answer_prefixes,
        data.benign_prompts,
        data.benign_texts,
        data.forbidden_words,
        data.benign_words,
    ],
)
@pytest.mark.parametrize("split", ["test", "", 3, ["train"]])
def test_unknown_split(load: Callable[[Any], Any], split: Any) -> None:
    with pytest.raises(ArgumentError, match=r"split: got .*one of .*'held_out'"):
        load(split)


@pytest.mark.parametrize(
    ("load", "split"), [(data.forbidden_words, "train"), (data.benign_words, "tune")]
)
def test_word_lists_have_two_halves(load: Callable[[Any], Any], split: str) -> None:
    with pytest.raises(ArgumentError, match=f"got '{split}'"):
        load(split)


# ---------------------------------------------------------- reading files


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "words.txt"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"bomb\nattack\n", ["bomb", "attack"]),
        (b"bomb\r\nattack", ["bomb", "attack"]),
        (b"\xef\xbb\xbfbomb\n", ["bomb"]),
        (b"\xef\xbb\xbf# comment\nbomb\n", ["bomb"]),
        (b"# all\n\n  bomb  # the first\n\t# indented\nattack\n", ["bomb", "attack"]),
        (b"c#\nnumber#one\n", ["c#", "number#one"]),
        (b"#metoo\nfuck #metoo now\n#\n", ["#metoo", "fuck #metoo now"]),
        ("می\u200cرود\nक्\u200dष\n".encode(), ["می\u200cرود", "क्\u200dष"]),
        ("\u200fقنبلة\n".encode(), ["قنبلة"]),
        ("STRASSE\nstraße\nGröße\nGRÖSSE\n".encode(), ["STRASSE", "straße", "Größe"]),
        (b"bomb\nattack\nBomb\nbomb\n", ["bomb", "attack"]),
        (b"car \t bomb\n", ["car bomb"]),
        ("Größe\nGRÖSSE\n".encode(), ["Größe"]),
        ("cafe\u0301\ncaf\u00e9\n".encode(), ["caf\u00e9"]),
        ("爆弾\n".encode(), ["爆弾"]),
        ("a\u2028b\n".encode(), ["a", "b"]),
    ],
)
def test_read_words(
    write: Callable[[bytes], Path], content: bytes, words: list[str]
) -> None:
    path = write(content)
    assert data.read_words(path) == words
    assert data.read_words(str(path)) == words


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \n", b"# only this\n"])
def test_read_words_without_words(
    write: Callable[[bytes], Path], content: bytes
) -> None:
    with pytest.raises(ArgumentError, match=r"words\.txt has no words; write at least"):
        data.read_words(write(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"bomb\nkn\xe4ckt\n",
            r"words\.txt, line 2: byte 0xe4 at column 3 .* as UTF-8",
        ),
        ("bomb\n".encode("utf-16"), r"words\.txt, line 1: byte 0xff at column 1 "),
        (b"bomb\n\n# caf\xe9\n", r"words\.txt, line 3: byte 0xe9 "),
        (b"bomb\nat\x00tack\n", r"line 2: 'at\\x00tack' holds a character"),
        ("bo\u200bmb\n".encode(), r"line 1: .* remove the character"),
    ],
)
def test_read_words_that_are_not_text(
    write: Callable[[bytes], Path], content: bytes, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        data.read_words(write(content))


def test_read_words_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        data.read_words(tmp_path / "none.txt")
