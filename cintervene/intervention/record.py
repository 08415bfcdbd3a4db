# SPDX-License-Identifier: Apache-2.0
"""What a file says of an intervention, checked before anything is made of it.

A digest tells that a file is whole, not who wrote it. Cards, reports and limits read
this record, so each part that they read has the type that they expect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["check_edit", "check_record"]

# Of changes that were scaled and added; each step nests the options once.
DEEPEST = 50
LONGEST_NAME = 1000
SHA256 = re.compile("[0-9a-f]{64}")
LIMITS = ("max_kl", "max_benign_loss", "max_false_refusals", "min_effect", "scaled_by")
# Of points of a sweep and of layers: what is text or a truth value; all else numbers.
WORDS = ("name", "status", "chosen", "matrix")


def check_record(record: Mapping[str, Any]) -> None:
    """Check model, options, metrics and versions.

    Raises
    ------
    ValueError
        Says which part is not what it should be.
    """
    _expect(record["model"], "model", _is_text, "text")
    versions = _expect(record["versions"], "versions", _is_table, "an object")
    for name, version in versions.items():
        _expect(version, f"versions, {name}", _is_text, "text")
    for part in _parts(record["options"], DEEPEST):
        _check_options(part)
    _check_metrics(_expect(record["metrics"], "metrics", _is_table, "an object"))


def check_edit(described: Mapping[str, Any]) -> None:
    """Check what JSON holds of the change of one weight.

    Raises
    ------
    ValueError
        Says which part is not what it should be.
    """
    name = _expect(described["name"], "name", _is_name, "the name of a weight")
    _expect(described["layer"], f"{name}, layer", _is_index, "an index")
    _expect(described["transposed"], f"{name}, transposed", _is_truth, "true or false")
    _expect(
        described["base_norm"], f"{name}, base_norm", _is_amount,
        "a finite number from 0",
    )  # fmt: skip
    others = described.get("elsewhere", [])
    for form in [described, *_expect(others, f"{name}, forms", _is_list, "a list")]:
        _check_form(name, _expect(form, f"{name}, forms", _is_table, "an object"))


def _check_form(name: str, described: Mapping[str, Any]) -> None:
    """Check the type of a weight and its hashes in that type."""
    _expect(described["dtype"], f"{name}, dtype", _is_text, "text")
    _expect(described["base_sha256"], f"{name}, base_sha256", _is_sha, "a sha256")
    result = described["result_sha256"]
    if result is not None:
        _expect(result, f"{name}, result_sha256", _is_sha, "a sha256")


def _parts(options: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """The options, and those of what was scaled or added."""
    if depth == 0:
        raise ValueError("options: are nested too deep")
    yield _expect(options, "options", _is_table, "an object")
    inner = [options["from"]] if "from" in options else options.get("sum_of", [])
    for part in _expect(inner, "options, sum_of", _is_list, "a list"):
        yield from _parts(part, depth - 1)


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("method", "concepts", "solver"):
        if options.get(name) is not None:
            _expect(options[name], f"options, {name}", _is_text, "text")
    for name in LIMITS:
        if options.get(name) is not None:
            _expect(options[name], f"options, {name}", _is_number, "a number")
    words = options.get("forbid")
    if words is not None:
        _expect(words, "options, forbid", _is_list, "a list")
        for word in words:
            _expect(word, "options, forbid", _is_text, "a list of texts")


def _check_metrics(metrics: Mapping[str, Any]) -> None:
    for kind in ("sweep", "layers"):
        entries = _expect(metrics.get(kind, []), f"metrics, {kind}", _is_list, "a list")
        for entry in entries:
            _expect(entry, f"metrics, {kind}", _is_table, "a list of objects")
            for name, value in entry.items():
                fits = _is_word if name in WORDS else _is_figure
                _expect(value, f"metrics, {kind}, {name}", fits, "a number or a name")
    seconds = _expect(metrics.get("seconds", {}), "seconds", _is_table, "an object")
    for name, value in seconds.items():
        _expect(value, f"metrics, seconds, {name}", _is_number, "a number")
    within = metrics.get("within_limits", True)
    _expect(within, "metrics, within_limits", _is_truth, "true or false")


def _expect(value: Any, name: str, fits: Callable[[Any], bool], expected: str) -> Any:
    if not fits(value):
        raise ValueError(f"{name}: got {str(value)[:80]!r}, expected {expected}")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_NAME
        and value.isprintable()
    )


def _is_sha(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_index(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _is_number(value: Any) -> bool:
    """Whether it is a number that floats hold; NaN is one that was not measured."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 1 << 63)


def _is_amount(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool))


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool)) or _is_number(value)
