# SPDX-License-Identifier: Apache-2.0
"""Draws architecture.svg: the packages as floors, read from the test that keeps them.

python docs/figures/architecture.py
"""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# Packages that stand side by side, from low to high. Within a row the right one may
# build on the left one, as within tests/test_floors.py.
ROWS = [
    ["csrc"],
    ["utils", "data", "words", "serve", "solvers"],
    ["models", "activations", "intervention"],
    ["prompts"],
    ["methods"],
    ["judges", "baselines", "attacks"],
    ["evaluate"],
    ["export"],
    ["study"],
    ["cli"],
]
TEXTS = {
    "csrc": "the C core: PCR, linear heads, losses, low-rank products",
    "utils": "checks, files",
    "data": "prompts",
    "words": "letters of tokens",
    "serve": "bans",
    "solvers": "arrays to solutions",
    "models": "find and load",
    "activations": "forward passes",
    "intervention": "a change of weights",
    "prompts": "words, requests and answers as tokens",
    "methods": "",
    "judges": "refused or not",
    "baselines": "other defences",
    "attacks": "search for answers",
    "evaluate": "before and after, with intervals",
    "export": "LoRA, GGUF, checkpoints, model cards",
    "study": "every defence against every attack",
    "cli": "the command cintervene",
}
METHODS = ["common", "pcr", "tsr", "arr", "gate", "guard"]
WIDTH, HEIGHT, GAP, EDGE = 640, 44, 8, 12
COLOURS = {"csrc": "#d6dbdf", "methods": "#d5f5e3"}
PLAIN, LINE, INK, GREY = "#eaf2f8", "#85929e", "#1b2631", "#566573"


def floors() -> list[str]:
    """Packages from low to high, as tests/test_floors.py has them."""
    tree = ast.parse((ROOT / "tests" / "test_floors.py").read_text("utf-8"))
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    ]
    names = [n.value for n in ast.walk(value) if isinstance(n, ast.Constant)]
    return [str(name).removeprefix("cintervene/") for name in names]


def check() -> None:
    """Refuse to draw what the test does not say."""
    known = [*floors(), "methods", "csrc"]
    drawn = [name for row in ROWS for name in row]
    order = [name for name in floors() if name in drawn]
    assert all(name in known for name in drawn), set(drawn) - set(known)
    assert order == [name for name in drawn if name in order], order


def box(name: str, x: float, y: float, width: float, height: float) -> list[str]:
    """A package with its name and what is in it."""
    middle, colour = x + width / 2, COLOURS.get(name, PLAIN)
    where = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    lines = [f'<rect {where} rx="4" fill="{colour}" stroke="{LINE}"/>']
    text = f'text-anchor="middle" x="{middle:g}"'
    lines.append(
        f'<text {text} y="{y + 18:g}" fill="{INK}" font-weight="bold">{name}</text>'
    )
    if TEXTS[name]:
        words = escape(TEXTS[name])
        lines.append(f'<text {text} y="{y + 35:g}" fill="{GREY}">{words}</text>')
    return lines


def inner(y: float) -> list[str]:
    """The folders of the methods, side by side."""
    width = (WIDTH - 2 * EDGE - 7 * GAP) / len(METHODS)
    lines = []
    for index, name in enumerate(METHODS):
        x = EDGE + GAP + index * (width + GAP)
        where = f'x="{x:g}" y="{y:g}" width="{width:g}" height="24"'
        lines += [
            f'<rect {where} rx="4" fill="white" stroke="{LINE}"/>',
            f'<text text-anchor="middle" x="{x + width / 2:g}" y="{y + 16:g}" '
            f'fill="{INK}">{name}</text>',
        ]
    return lines


def main() -> None:
    """Write the figure beside this file, the same bytes at every call."""
    check()
    lines, y = [], EDGE
    for row in reversed(ROWS):
        width = (WIDTH - 2 * EDGE - (len(row) - 1) * GAP) / len(row)
        tall = HEIGHT + 14 if row == ["methods"] else HEIGHT
        for index, name in enumerate(row):
            lines += box(name, EDGE + index * (width + GAP), y, width, tall)
        if row == ["methods"]:
            lines += inner(y + 26)
        y += tall + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 4}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">'
    )
    paper = f'<rect width="{WIDTH}" height="{y + 4}" fill="white"/>'
    text = "\n".join([head, paper, *lines, "</svg>", ""])
    Path(__file__).with_suffix(".svg").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
