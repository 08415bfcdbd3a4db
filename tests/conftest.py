# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: tiny random-weight models of every supported architecture."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("support")

from support.native import build
from support.tiny_models import ARCHITECTURES, make_tiny_model

# Spinning OpenMP threads make operations on tiny tensors a hundred times slower when
# the cores are busy. The variable is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# How long an example takes says how busy the machine is. What fails is to fail again;
# the many cases of tests/run_long are others each time.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("other cases", deadline=None)

TESTS = Path(__file__).parent
COUNTS = pytest.StashKey[dict[str, int]]()

# Files that take minutes. Where processes share the files these begin, for whoever
# began such a one at the end would let the others wait.
LONGEST = (
    "test_notebooks.py",
    "methods/gate/test_gate.py",
    "test_architectures.py",
    "methods/tsr/test_tsr.py",
    "test_examples.py",
    "core/test_fork.py",
    "core/test_fuzz.py",
    "test_c_core.py",
    "test_crashes.py",
    "test_hostile.py",
    "methods/guard/test_smollm2.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="run the many cases of tests/run_long"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = {}
    settings.load_profile("other cases" if config.option.long else "repeatable")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    for item in items:
        if "counted" in getattr(item, "fixturenames", ()):
            item.add_marker("counted")
    if hasattr(config, "workerinput"):
        places = {TESTS / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that shares out the tests what this one has counted."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = session.config.stash[COUNTS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a process has counted; one that died tells nothing."""
    counted = getattr(node, "workeroutput", {}).get("counts", {})
    for what, number in counted.items():
        _count(node.config, what, number)


def _count(config: pytest.Config, what: str, number: int) -> None:
    counts = config.stash[COUNTS]
    counts[what] = counts.get(what, 0) + number


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counts = config.stash[COUNTS]
    if counts:
        terminalreporter.section("cases that were run")
        for what, number in counts.items():
            terminalreporter.write_line(f"{number:9,d}  {what}")


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """How many cases to run: `cases(300, 3000)` is 3000 with `--long`, else 300."""
    long = request.config.getoption("--long")
    return lambda usual, many: many if long else usual


@pytest.fixture
def counted(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Have the summary print how many cases were run: `counted("forks", 300)`."""
    return lambda what, number: _count(request.config, what, number)


@pytest.fixture(autouse=True)
def no_kept_scores(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let every test compare layers by itself, not find what an earlier one kept."""
    module = sys.modules.get("cintervene.methods.common.layer_scores")
    if module is not None:
        place = cache(lambda: tmp_path_factory.mktemp("kept"))
        monkeypatch.setattr(module, "cache_directory", place)


@pytest.fixture(scope="session")
def sanitized_build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The C sources with address and undefined-behaviour sanitizers, built once."""
    return build(_shared(tmp_path_factory) / "sanitized", sanitized=True)


@pytest.fixture(scope="session")
def shipped_build(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The C sources with the flags of the package, built once."""
    return build(_shared(tmp_path_factory) / "shipped", sanitized=False)


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of all processes that share the tests of this run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """SmolLM2-135M-Instruct and its tokenizer, fetched once if need be."""
    models = pytest.importorskip("cintervene.models")
    errors = pytest.importorskip("cintervene.errors")
    try:
        return models.load("smollm2")
    except errors.ModelError as error:
        if "could not download" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """Return the builder of tiny models: `tiny_model("llama", num_hidden_layers=2)`."""
    return make_tiny_model


@pytest.fixture(params=sorted(ARCHITECTURES))
def any_model(request: pytest.FixtureRequest) -> Any:
    """One tiny model of each supported architecture."""
    return make_tiny_model(request.param)


@pytest.fixture(params=["down_proj", "o_proj"])
def matrix(request: pytest.FixtureRequest) -> Any:
    """Which projection of a layer is changed."""
    return request.param


ARM = platform.machine() in ("aarch64", "arm64")


@pytest.fixture(params=["baseline", "neon"] if ARM else ["baseline", "avx2", "avx512"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with one table of C kernels after the other."""
    from cintervene import _core

    chosen = _core.config()["cpu"]
    try:
        _core.select_kernels(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    _core.select_kernels(chosen)
