# SPDX-License-Identifier: Apache-2.0
"""The frozen set stays as it was, is no part of the others, and nothing is tuned on it.

Who changes a byte of it has another set: then every number that was reported on it has
to go, and the hash here changes with them.
"""

import ast
import re
from hashlib import sha256
from importlib import resources
from pathlib import Path

import pytest

from cintervene import data
from cintervene.data.splits import SPLITS
from cintervene.errors import ArgumentError

FROZEN = "e2ef6224e881b54ceb84c57c1c2dea1921c47e45cd0bc4e981ee6fd6314500fc"
PACKAGE = Path(str(resources.files("cintervene")))
# What measures, and the data themselves. Everything below makes or chooses.
MAY_NAME_IT = ("data", "evaluate", "study", "cli")
READERS = (
    data.harmful_prompts, data.borderline_prompts, data.benign_prompts,
    data.jailbreak_templates, data.ordinary_templates, data.compliance_prefixes,
    data.obedience_templates,
)  # fmt: skip


def texts(entries):
    return [
        entry
        if isinstance(entry, str)
        else getattr(entry, "text", None) or entry.prompt
        for entry in entries
    ]


def content(text):
    return set(re.findall(r"\w+", text.lower()))


def test_not_a_byte_has_changed():
    file = resources.files("cintervene.data") / "fresh.json"
    assert sha256(file.read_bytes()).hexdigest() == FROZEN


def test_nothing_that_makes_or_chooses_names_it():
    naming = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("fresh", "fresh.json")
    ]
    assert naming
    assert {name.split("/")[0] for name in naming} <= set(MAY_NAME_IT)


def test_it_is_large_enough():
    harmful = data.harmful_prompts("fresh")
    borderline = data.borderline_prompts("fresh")
    with_passage = [p for p in harmful if p.category == "contextual"]
    assert len(harmful) - len(with_passage) >= 60
    assert len({p.category for p in harmful}) >= 15
    assert len(with_passage) >= 40
    assert sum(p.category != "contextual" for p in borderline) >= 40
    assert len(data.benign_prompts("fresh")) >= 60
    for prompt in (*harmful, *borderline):
        assert ("\n\n" in prompt.text) == (prompt.category == "contextual")


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_no_entry_is_like_one_of_another_split(read):
    fresh = texts(read("fresh"))
    assert len(set(fresh)) == len(fresh)
    others = [t for split in SPLITS if split != "fresh" for t in texts(read(split))]
    alike = [
        (one, other)
        for one in fresh
        for other in others
        if len(content(one) & content(other))
        >= 0.6 * len(content(one) | content(other))
    ]
    assert alike == []


@pytest.mark.parametrize(("split", "each"), [("held_out", 1), ("fresh", 3)])
def test_languages(split, each):
    pairs = list(
        zip(
            data.language_requests(split, harmful=True),
            data.language_requests(split, harmful=False),
            strict=True,
        )
    )
    assert len(pairs) == 10 * each
    assert len({bad.language for bad, _ in pairs}) == 10
    assert len({bad.language for bad, _ in pairs[:10]}) == 10
    for bad, good in pairs:
        assert bad.language == good.language
        assert bad.harmful
        assert not good.harmful
        assert bad.text != good.text


def test_languages_are_other_ones_in_each_split():
    one, other = (
        {r.text for harm in (True, False)
         for r in data.language_requests(split, harmful=harm)}
        for split in ("held_out", "fresh")
    )  # fmt: skip
    assert one & other == set()


@pytest.mark.parametrize("split", ["held_out", "fresh"])
def test_clues_do_not_name_their_word(split):
    words = data.forbidden_words(None if split == "held_out" else "held_out")
    for clues in (data.definitions(split), data.running_texts(split)):
        assert sorted(clues) == sorted(words)
        assert len(set(clues.values())) == len(words)
        for word, clue in clues.items():
            assert word not in re.findall(r"\w+", clue.lower())
            assert clue == clue.strip()


def test_clues_are_other_ones_in_each_split():
    for read in (data.definitions, data.running_texts):
        held_out, fresh = read("held_out"), read("fresh")
        for word, clue in fresh.items():
            one, other = content(clue), content(held_out[word])
            assert len(one & other) < 0.6 * len(one | other), word


def test_templates_that_ask_otherwise():
    held_out, fresh = map(data.extraction_templates, ("held_out", "fresh"))
    assert list(held_out) == list(fresh)
    prompts = [
        {t["prompt"] + t.get("prefill", "") for group in one.values() for t in group}
        for one in (held_out, fresh)
    ]
    assert prompts[0] & prompts[1] == set()


@pytest.mark.parametrize("read", [data.definitions, data.extraction_templates])
@pytest.mark.parametrize("split", ["train", "tune", "other"])
def test_clues_are_for_reports_only(read, split):
    with pytest.raises(ArgumentError, match=r"one of 'fresh', 'held_out'"):
        read(split)
