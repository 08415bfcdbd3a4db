# SPDX-License-Identifier: Apache-2.0
"""What the pages say is there: links, files, names, and code that names parameters."""

from __future__ import annotations

import ast
import os
import re
import runpy
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import cintervene as ci
from cintervene.methods.registry import all_methods

ROOT = Path(__file__).parent.parent
# A diary: what it names was there on the day that it names.
DIARY = "benchmarks/HISTORY.md"
FOLDERS = ("docs", "changes", "benchmarks", "examples")
PAGES = [
    str(path.relative_to(ROOT))
    for path in (
        *sorted(ROOT.glob("*.md")),
        *(page for name in FOLDERS for page in sorted((ROOT / name).rglob("*.md"))),
    )
]
TEXTS = {page: (ROOT / page).read_text("utf-8") for page in PAGES}
CHECKED = [page for page in PAGES if page != DIARY]

FENCE = re.compile(r"^ *```([^\n`]*)\n(.*?)^ *```$", re.M | re.S)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
# A dotted name of the package, perhaps without `ci.`, or a path.
ROOTS = "ci|cintervene|models|evaluate|export|attacks|baselines|data"
NAME = re.compile(rf"(?<![\w./])(?:{ROOTS})(?:\.(?!(?:h|py)\b)[A-Za-z_]\w*)+")
PATH = re.compile(
    r"\b(?:cintervene|csrc|tests|benchmarks|docs|examples|notebooks)/[\w./*-]+"
)


def prose(page: str) -> str:
    """The text without blocks of code."""
    return FENCE.sub("", TEXTS[page])


def blocks(page: str) -> list[str]:
    """The blocks of Python."""
    found = FENCE.findall(TEXTS[page])
    return [dedent(code) for kind, code in found if kind == "python"]


def anchors(page: str) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    plain = (re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", one)) for one in headings)
    return {one.strip().lower().replace(" ", "-") for one in plain}


def exists(path: str) -> bool:
    """Whether a path, perhaps with stars, is there."""
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


@cache
def resolve(name: str) -> bool:
    """Whether a dotted name is a module or an attribute of one, or of a class."""
    value: Any = ci
    path = "cintervene"
    for part in re.sub(r"^(ci|cintervene)\.", "", name).split("."):
        path = f"{path}.{part}"
        known = getattr(value, "__dataclass_fields__", {})
        if hasattr(value, part):
            value = getattr(value, part)
        elif part in known:
            return True
        else:
            try:
                value = import_module(path)
            except ImportError:
                return False
    return True


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for _, link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        path = relative(page, place) if place else page
        if not exists(path) or (
            anchor and path in TEXTS and anchor not in anchors(path)
        ):
            broken.append(link)
    assert broken == []


def relative(page: str, place: str) -> str:
    """Where a link of a page leads to, from the root of the repository."""
    return os.path.relpath((ROOT / page).parent / place, ROOT)


@pytest.mark.parametrize("page", CHECKED)
def test_what_is_named_exists(page: str) -> None:
    text = prose(page)
    if re.fullmatch(r"changes/\w+\.(changed|removed)(\.\d+)?\.md", page):
        # The first column of a table has the names of before.
        text = re.sub(r"^( *\|)[^|]*\|", r"\1", text, flags=re.M)
    missing = []
    for span in SPAN.findall(text):
        missing += [name for name in NAME.findall(span) if not resolve(name)]
        if "<" not in span:
            paths = (path.rstrip("./") for path in PATH.findall(span))
            missing += [path for path in paths if not exists(path)]
    assert missing == []


@pytest.mark.parametrize("page", CHECKED)
def test_code_compiles_and_names_parameters(page: str) -> None:
    for code in blocks(page):
        for call in ast.walk(ast.parse(code)):
            if isinstance(call, ast.Call):
                check_call(call)


def check_call(call: ast.Call) -> None:
    """A call of `defend`, a guard or a configuration gives parameters that exist."""
    name = ast.unparse(call.func).rpartition(".")[2]
    configs = {
        method.config.__name__: method.config for method in all_methods().values()
    }
    configs |= {one.__name__: one for one in (ci.GuardConfig, ci.CalibrationSize)}
    keywords = {one.arg: one.value for one in call.keywords if one.arg is not None}
    if name == "defend":
        method = keywords.pop("method", ast.Constant("pcr"))
        keywords.pop("progress", None)
        assert isinstance(method, ast.Constant)
        config = all_methods().get(method.value)
        if config is None:  # A method that the page itself makes.
            return
        known = config.config.names()
    elif name == "Guard":
        known = ci.GuardConfig.names()
    elif name in configs:
        known = configs[name].names()
    else:
        return
    assert set(keywords) <= set(known), ast.unparse(call)


def test_calls_are_checked() -> None:
    def check(code: str) -> None:
        call = ast.parse(code, mode="eval").body
        assert isinstance(call, ast.Call)
        check_call(call)

    check("ci.defend(model, tokenizer, forbid=words, max_kl=0.1)")
    check("ci.Guard(model, tokenizer, forbid=words, strength=8)")
    for wrong in (
        "ci.defend(model, tokenizer, words, budget=few)",
        'ci.defend(model, tokenizer, method="gate", radius=1)',
        "ci.PCRConfig(forbid=words, options=1)",
    ):
        with pytest.raises(AssertionError):
            check(wrong)
    assert resolve("ci.PCRConfig.max_rank")
    assert resolve("cintervene.methods.tsr.fit")
    assert not resolve("ci.PCROptions")
    assert not resolve("cintervene.models.capture")


def test_every_page_is_on_the_map() -> None:
    index = "docs/index.md"
    linked = {relative(index, link) for _, link in LINK.findall(TEXTS[index])}
    assert {page for page in PAGES if page.startswith("docs/")} - {index} <= linked


def test_the_floors_are_drawn_as_they_are() -> None:
    figure = ROOT / "docs" / "figures" / "architecture.svg"
    before = figure.read_bytes()
    runpy.run_path(str(figure.with_suffix(".py")), run_name="__main__")
    after = figure.read_bytes()
    figure.write_bytes(before)
    assert after == before
    ElementTree.fromstring(before)


def test_the_method_of_contributing_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are put into a package of their own, imported and used."""
    from support.saved_models import save_tiny_model

    from cintervene.methods.registry import unregister
    from cintervene.models import load

    (code,) = blocks("CONTRIBUTING.md")
    package = tmp_path / "docs_ablation"
    package.mkdir()
    parts = re.split(r"^# cintervene/methods/ablation/(\w+\.py)\n", code, flags=re.M)[
        1:
    ]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        moved = text.replace("cintervene.methods.ablation", package.name)
        (package / name).write_text(moved, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import_module(package.name)
    try:
        model, tokenizer = load(save_tiny_model(tmp_path / "tiny"))
        change = ci.defend(
            model, tokenizer, method="ablation", share=0.5, harmful=["How?"]
        )
        config = all_methods()["ablation"].config.from_dict(change.options)
        assert (config.share, config.layers) == (0.5, (1,))
        (edit,) = change.edits.values()
        assert edit.update.rank == 1
    finally:
        unregister("ablation")
        for name in [one for one in sys.modules if one.startswith(package.name)]:
            del sys.modules[name]
