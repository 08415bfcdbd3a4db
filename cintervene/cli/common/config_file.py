# SPDX-License-Identifier: Apache-2.0
"""Configurations of methods as TOML files: a table of parameters, and the method."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

from cintervene.errors import ArgumentError
from cintervene.methods.config import MethodConfig
from cintervene.methods.registry import DEFAULT_METHOD, find_method

__all__ = ["CONFIG", "read_config", "write_config"]

CONFIG = "config.toml"
HEAD = """\
# In clear: all words, requests and other texts that the run was given. Keep it private.
# The same again: cintervene defend {model} --config {name} --out DIR
"""


def read_config(path: Path) -> dict[str, Any]:
    """Return the table of a file, as `MethodConfig.from_dict` takes it.

    Raises
    ------
    ArgumentError
        It is no TOML file, or its method is unknown.
    OSError
        It cannot be read.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"--config: {path} is no TOML file ({error}); give lines such as "
            'method = "gate"'
        ) from error
    try:
        find_method(table.get("method", DEFAULT_METHOD))
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error
    return table


def write_config(
    directory: Path,
    config: MethodConfig,
    model: str,
    dtype: str = "auto",
    note: str = "",
) -> None:
    """Write what repeats a run; what is None is left out, for TOML has no such value.

    Parameters
    ----------
    directory : Path
    config : MethodConfig
        As it was asked for.
    model : str
        As ``--model`` names it.
    dtype : str, default "auto"
        As ``--dtype`` names it.
    note : str, optional
        A comment of one line.
    """
    import tomli_w

    values = {k: v for k, v in config.to_dict().items() if v is not None}
    flags = ["--model", model] + (["--dtype", dtype] if dtype != "auto" else [])
    head = HEAD.format(model=shlex.join(flags), name=CONFIG)
    head += f"# {note}\n" if note else ""
    text = head + "\n" + tomli_w.dumps(values, multiline_strings=False)
    (directory / CONFIG).write_text(text, "utf-8")
