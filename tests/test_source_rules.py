# SPDX-License-Identifier: Apache-2.0
"""House rules of the sources that no compiler enforces."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted(
    p for p in (ROOT / "csrc/core").rglob("*") if p.suffix in {".c", ".h", ".inc"}
)
BINDING = sorted((ROOT / "csrc/python").glob("*.[ch]"))
PYTHON = sorted((ROOT / "cintervene").rglob("*.py"))
SOURCES = [*CORE, *BINDING, *PYTHON, ROOT / "csrc/include/cintervene.h"]


def without_comments(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r'"(\\.|[^"\\])*"', '""', text)


def test_sources_are_found():
    assert len(CORE) > 10
    assert len(BINDING) > 5


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_licence_and_length(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "SPDX-License-Identifier: Apache-2.0" in lines[0]
    assert len(lines) <= 600


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_core_keeps_to_itself(path):
    text = path.read_text(encoding="utf-8")
    code = without_comments(path)
    assert not re.search(r"#include\s*[<\"](Python|numpy|dlpack)", text)
    assert not re.search(r"\b(printf|fprintf|puts|perror|exit|abort)\s*\(", code)
    if path.name != "parallel.c":
        assert "omp.h" not in text
        assert "#pragma omp parallel" not in text
    if path.name not in {"linalg.c", "products.c"}:
        assert '#include "linalg/lapack.h"' not in text
    if path.name != "blocks.c":
        assert not re.search(r"\b(malloc|calloc|realloc|free)\s*\(", code)


@pytest.mark.parametrize("path", BINDING, ids=lambda p: p.name)
def test_binding_uses_safe_references(path):
    code = without_comments(path)
    assert not re.search(r"\b(PyList_GetItem|PyDict_GetItem(String)?)\s*\(", code)
    assert not re.search(r"\bPyErr_Print\s*\(", code)
    if path.name != "capsule.c":
        assert "PyCapsule" not in code
    if path.name != "tensor.c":
        assert "PyArray" not in code


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_does_not_print_or_seed(path):
    code = path.read_text(encoding="utf-8")
    if "cli" not in path.parts:
        assert not re.search(r"^\s*print\(", code, flags=re.M)
    assert not re.search(
        r"\b(np\.random\.seed|torch\.manual_seed|random\.seed)\(", code
    )
    assert "os.environ[" not in re.sub(r"os\.environ\[[^\]]*\](?!\s*=[^=])", "", code)


def test_public_symbols_are_prefixed():
    header = (ROOT / "csrc/include/cintervene.h").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    functions = re.findall(r"^[a-z][\w *]*?(\w+)\(", code, flags=re.M)
    assert functions
    assert [f for f in functions if not f.startswith("civ_")] == []


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_of_models_is_never_run(path):
    """transformers asks at the terminal where `trust_remote_code` is not given."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        if getattr(node.func, "attr", "") in {"from_pretrained", "from_config"}:
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("trust_remote_code") == "False"
        assert all(
            ast.unparse(k.value) == "False"
            for k in node.keywords
            if k.arg == "trust_remote_code"
        )


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_lock_is_held_while_an_attribute_is_computed(path):
    """A process forked meanwhile would inherit it locked: see `utils/lazy.py`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {n.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
             for n in node.names}  # fmt: skip
    assert "cached_property" not in names
