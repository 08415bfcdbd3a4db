# SPDX-License-Identifier: Apache-2.0
"""A source distribution holds what a build needs; workflows name what there is."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Names of the files in a source distribution of this tree."""
    pytest.importorskip("setuptools")
    pytest.importorskip("scipy_openblas32")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.so.*")
    for name in ("cintervene", "csrc"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    command = [sys.executable, "setup.py", "-q", "sdist"]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (made,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(made) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_it_holds_every_source_and_every_file_of_data(packed):
    wanted = {
        str(path.relative_to(ROOT))
        for folder in ("cintervene", "csrc")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not re.search(r"__pycache__|\.so(\.\d+)?$", str(path))
    }
    assert len(wanted) > 400
    assert wanted <= packed
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= packed


def test_wheels_are_made_for_the_versions_that_are_named():
    named = [
        one.rpartition(" ")[2]
        for one in PROJECT["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", one)
    ]
    built = [f"cp{one.replace('.', '')}-*" for one in named]
    settings = PROJECT["tool"]["cibuildwheel"]
    assert settings["build"] == built
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    assert (ROOT / settings["test-command"].rpartition("{project}/")[2]).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_there_is(path):
    yaml = pytest.importorskip("yaml")
    text = path.read_text("utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs
    for name in re.findall(r"\.ci/\w+|docs/\w+\.md|\bdocs/site\b", text):
        assert (ROOT / name).is_file()
    for job in jobs.values():
        assert set(job.get("needs", [])) <= set(jobs)


def test_there_are_workflows():
    assert {path.name for path in WORKFLOWS} >= {"tests.yml", "wheels.yml", "docs.yml"}
