# SPDX-License-Identifier: Apache-2.0
"""``cintervene doctor``: what is installed and missing, what a bug report wants."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict

from cintervene.cli.common.console import Console, print_json, say
from cintervene.cli.common.failures import Exit
from cintervene.cli.common.machine import (
    Package,
    computes,
    gpus,
    packages,
    platform_facts,
    variables,
)


def run(arguments: Namespace, console: Console) -> Exit:
    """Print what was found; done if nothing is missing that a command needs."""
    devices, trouble = _devices()
    # After torch, whose OpenMP runtime is seen only once it is loaded.
    facts, checked, known = platform_facts(), computes(), packages()
    complaints = [trouble] if trouble else []
    if not checked:
        complaints.append("the core solves a small problem without proving it")
    missing = [one for one in known if one.needed and not one.fits]
    if arguments.json:
        print_json(
            {
                "command": "doctor",
                "machine": facts,
                "gpus": devices,
                "packages": [asdict(one) | {"remedy": one.remedy} for one in known],
                "environment": variables(),
                "problems": complaints,
            }
        )
    else:
        say(_text(facts, devices, known, complaints))
    return Exit.DONE if not (missing or complaints) else Exit.GOAL_NOT_REACHED


def _devices() -> tuple[list[str] | None, str]:
    """The GPUs, and what keeps torch from being loaded."""
    try:
        return gpus(), ""
    except (ImportError, OSError) as error:
        return None, f"torch is installed and cannot be loaded: {error}"


def _text(
    facts: Mapping[str, str],
    devices: list[str] | None,
    known: list[Package],
    complaints: list[str],
) -> str:
    lines = [*_table(facts), *_table({"gpus": _gpu_text(devices)})]
    lines += ["", *_table({one.name: _package_text(one) for one in known})]
    lines += ["", *_table(variables())] if variables() else []
    lines += ["", *(f"problem: {complaint}" for complaint in complaints)]
    return "\n".join([*lines, _advice(known, complaints)])


def _table(rows: Mapping[str, str]) -> list[str]:
    return [f"{name:<20}  {text}" for name, text in rows.items()]


def _gpu_text(devices: list[str] | None) -> str:
    if devices is None:
        return "unknown without torch"
    return "; ".join(devices) or "none that torch can use"


def _package_text(one: Package) -> str:
    if one.found is None:
        return f"missing ({one.purpose}): {one.remedy}"
    if not one.fits:
        return f"{one.found}, expected {one.versions} ({one.purpose}): {one.remedy}"
    return one.found


def _advice(known: list[Package], complaints: list[str]) -> str:
    """What to do about it, in one line."""
    missing = [one for one in known if one.needed and not one.fits]
    if missing:
        return "For all commands: pip install 'cintervene[hf,plot]'"
    if complaints:
        return "Please report this with the lines above."
    return "All commands can run. A bug report wants the lines above."
