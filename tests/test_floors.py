# SPDX-License-Identifier: Apache-2.0
"""The floors of the sources: what may build on what, from low to high."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
C_FLOORS = [
    "csrc/include",
    "csrc/core/runtime",
    "csrc/core/kernels",
    "csrc/core/linalg",
    "csrc/core/first_order",
    "csrc/core/lm_head",
    "csrc/core/pcr/common",
    "csrc/core/pcr/halfspace",
    "csrc/core/pcr/dual",
    "csrc/core/pcr",
    "csrc/core",
    "csrc/python",
]
FLOORS = [
    "cintervene/_core",
    "cintervene/version",
    "cintervene/errors",
    "cintervene/utils",
    "cintervene/data",
    "cintervene/words",
    "cintervene/serve",
    "cintervene/solvers",
    "cintervene/models",
    "cintervene/activations",
    "cintervene/intervention",
    "cintervene/prompts",
    "cintervene/methods/account",
    "cintervene/methods/config",
    "cintervene/methods/registry",
    "cintervene/methods/common",
    "cintervene/methods/pcr",
    "cintervene/methods/tsr",
    # All other methods: what is added to them has its floor already.
    "cintervene/methods",
    "cintervene/methods/defend",
    "cintervene/methods/plan",
    "cintervene/judges",
    "cintervene/baselines",
    "cintervene/attacks",
    "cintervene/evaluate",
    "cintervene/export",
    "cintervene/study",
    "cintervene/cli",
    "cintervene",
]
C_TEXTS = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "csrc").rglob("*"))
    if path.suffix in {".c", ".h", ".inc"}
}
# The style puts the name of a function at the start of a line, below its type.
C_FUNCTION = re.compile(r"^(?P<type>[\w ]+\**)\n(?P<name>\w+)\(.*?^\}", re.M | re.S)

Graph = dict[str, set[str]]


def height(node: str, floors: list[str]) -> int:
    """Index of the innermost listed folder that a file, without suffix, lies in."""
    at = [(len(f), i) for i, f in enumerate(floors) if f"{node}/".startswith(f"{f}/")]
    assert at, f"{node}: its folder has no floor"
    return max(at)[1]


def upward(graph: Graph, floors: list[str]) -> list[str]:
    """Arrows from a file to one of a higher floor."""
    return [
        f"{node} -> {other}"
        for node, others in graph.items()
        for other in sorted(others)
        if height(other, floors) > height(node, floors)
    ]


def circle(graph: Graph) -> list[str]:
    """Files that lead back to where they began, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def c_graph() -> Graph:
    """Includes, and uses of functions of other files; a .c and its .h are one node."""
    nodes = {path: str(path.with_suffix("")) for path in C_TEXTS}
    homes = {
        match["name"]: nodes[path]
        for path, text in C_TEXTS.items()
        for match in C_FUNCTION.finditer(text)
        if path.suffix == ".c" and not match["type"].startswith("static")
    }
    graph: Graph = {node: set() for node in nodes.values()}
    for path, text in C_TEXTS.items():
        code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        words = re.findall(r"\w+", code) if path.suffix != ".h" else []
        targets = {homes[word] for word in words if word in homes}
        for name in re.findall(r'#include "(.+?)"', code):
            places = [
                Path(f) / name for f in ("csrc/include", "csrc/core", path.parent)
            ]
            targets |= {nodes[place] for place in places if place in nodes}
        graph[nodes[path]] |= targets - {nodes[path]}
    return graph


def python_graph() -> Graph:
    """Imports that a module or package names; a package's own file is a node too."""
    paths = [*(ROOT / "cintervene").rglob("*.py"), ROOT / "cintervene/_core.pyi"]
    nodes = {str(path.relative_to(ROOT).with_suffix("")): path for path in paths}

    def node_of(*names: str) -> str | None:
        place = ".".join(names).replace(".", "/")
        return next((n for n in (place, f"{place}/__init__") if n in nodes), None)

    graph: Graph = {}
    for node, path in nodes.items():
        found: set[str | None] = set()
        for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(one, ast.ImportFrom):
                module = one.module or ""
                found |= {node_of(module, a.name) or node_of(module) for a in one.names}
            elif isinstance(one, ast.Import):
                found |= {node_of(alias.name) for alias in one.names}
        graph[node] = {other for other in found if other is not None}
    return graph


def test_python_imports_go_down_only():
    graph = python_graph()
    print(f"{sum(map(len, graph.values()))} imports of {len(graph)} modules")
    assert sum(map(len, graph.values())) > 500
    assert upward(graph, FLOORS) == []
    assert circle(graph) == []


def test_c_calls_go_down_only():
    graph = c_graph()
    assert sum(map(len, graph.values())) > 100
    assert upward(graph, C_FLOORS) == []
    assert circle(graph) == []


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    return length - (first.end_lineno - first.lineno + 1) * documented


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "cintervene").rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_python_functions_are_short(path):
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    assert {f.name: n for f in functions if (n := code_lines(f)) > 60} == {}


@pytest.mark.parametrize("path", C_TEXTS, ids=str)
def test_c_functions_are_short(path):
    lengths = {
        match["name"]: match[0].count("\n")
        for match in C_FUNCTION.finditer(C_TEXTS[path])
    }
    assert {name: n for name, n in lengths.items() if n > 60} == {}


def test_circles_and_upward_arrows_are_seen():
    graph = {"low/a": {"high/b"}, "high/b": {"high/c"}, "high/c": {"low/a"}}
    assert upward(graph, ["low", "high"]) == ["low/a -> high/b"]
    assert set(circle(graph)) == set(graph)
    assert circle({"low/a": set(), "high/b": {"low/a"}}) == []
