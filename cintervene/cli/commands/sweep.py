# SPDX-License-Identifier: Apache-2.0
"""``cintervene sweep``: many settings on one model, a table and the front."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from cintervene.cli.common.budgets import evaluation_size, given_numbers
from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.inputs import PACKAGED, load_named, read_texts
from cintervene.errors import ArgumentError
from cintervene.prompts.calibration_size import CalibrationSize
from cintervene.study import sweep
from cintervene.study.sweeps.files import sweep_content
from cintervene.study.sweeps.run import check_out


def run(arguments: Namespace, console: Console) -> Exit:
    """Make and measure what is not there yet, and show the table of everything."""
    lists = _lists(arguments.forbid)
    budget = arguments.budget or "default"
    sizes: dict[str, Any] = {}
    numbers = given_numbers(arguments, "calibration")
    if numbers:
        sizes["calibration"] = CalibrationSize.named(budget, **numbers)
    check_out(arguments.out)
    model, tokenizer = load_named(arguments, console)
    found = sweep(
        model, tokenizer, arguments.out, forbid=lists, method=arguments.method,
        layers=arguments.layers, strength=arguments.strength, budget=budget,
        split=arguments.split, size=evaluation_size(arguments), progress=console,
        **sizes,
    )  # fmt: skip
    console.close()
    if arguments.json:
        out = str(arguments.out)
        print_json({"command": "sweep", "out": out, **sweep_content(found)})
    else:
        say(found)
        names = "\n".join(f"  {row.name}" for row in found.front)
        say(f"\nOn the front, each with its intervention in {arguments.out}:\n{names}")
        say(f"{arguments.out / 'report.html'} has all of it")
    return Exit.DONE


def _lists(sources: list[str]) -> dict[str, list[str]]:
    """The words of each file, by what it is called."""
    lists: dict[str, list[str]] = {}
    for source in sources:
        name = source if source == PACKAGED["forbid"] else Path(source).stem
        if name in lists:
            raise ArgumentError(
                f"--forbid: got two lists called {name}; rename one of the files"
            )
        lists[name] = read_texts("forbid", source)
    return lists
