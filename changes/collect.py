# SPDX-License-Identifier: Apache-2.0
"""Fold the fragments of this folder into CHANGELOG.md, as a new release."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path

TYPES = ("added", "changed", "fixed", "removed")
NAME = re.compile(r"(?P<issue>[\w-]+)\.(?P<type>\w+)(\.\d+)?\.md")
HERE = Path(__file__).parent


def find_fragments(directory: Path) -> list[Path]:
    """Return the fragments of a folder: by issue, numbers in order and before names.

    Raises
    ------
    ValueError
        A file is named otherwise, or does not hold list items.
    """
    paths = [path for path in directory.glob("*.md") if path.name != "README.md"]
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None or match["type"] not in TYPES:
            raise ValueError(
                f"{path.name}: expected <issue>.<type>.md, the type one of "
                f"{', '.join(TYPES)}; rename it"
            )
        if not path.read_text("utf-8").startswith("- "):
            raise ValueError(
                f'{path.name}: expected list items; begin the first line with "- "'
            )
    return sorted(paths, key=_order)


def _order(path: Path) -> tuple[int, str]:
    issue = path.name.partition(".")[0]
    return (int(issue) if issue.isdecimal() else 10**9), path.name


def render_release(version: str, day: str, paths: Iterable[Path]) -> str:
    """Return the section of a release, one heading for each type there is."""
    texts: dict[str, list[str]] = {kind: [] for kind in TYPES}
    for path in paths:
        kind = path.name.split(".")[1]
        texts[kind].append(path.read_text("utf-8").strip())
    parts = [f"## [{version}] - {day}"]
    for kind, items in texts.items():
        if items:
            parts += [f"### {kind.capitalize()}", "\n".join(items)]
    return "\n\n".join(parts) + "\n"


def insert_release(changelog: str, release: str) -> str:
    """Put a release before the latest one, or at the end where there is none."""
    start = re.search(r"^## ", changelog, re.MULTILINE)
    if start is None:
        return f"{changelog.rstrip()}\n\n{release}"
    return f"{changelog[: start.start()]}{release}\n{changelog[start.start() :]}"


def main(arguments: list[str] | None = None, root: Path = HERE.parent) -> None:
    """Collect; `root` holds CHANGELOG.md and the folder changes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("date", nargs="?", default=date.today().isoformat())
    parser.add_argument("--dry-run", action="store_true", help="print the release only")
    given = parser.parse_args(arguments)
    paths = find_fragments(root / "changes")
    if not paths:
        parser.error(f"changes: got no fragments, expected one for {given.version}")
    release = render_release(given.version, given.date, paths)
    if given.dry_run:
        print(release)
        return
    changelog = root / "CHANGELOG.md"
    text = insert_release(changelog.read_text("utf-8"), release)
    changelog.write_text(text, "utf-8")
    for path in paths:
        path.unlink()


if __name__ == "__main__":
    main()
