# SPDX-License-Identifier: Apache-2.0
"""The modes of a chat template, found by giving values to the variables it looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from cintervene.errors import ArgumentError

__all__ = ["Options", "options_of", "variables"]

Options = Mapping[str, Any]

# Variables that hold content, not a mode.
CONTENT = re.compile(
    r"tool|document|date|time|image|video|audio|citation|message|role|prompt|identity"
    r"|name|token|function|system|strftime|raise_exception|namespace",
    re.IGNORECASE,
)
# What is printed as it is given; templates do not say what there is.
VALUES = {"reasoning_effort": ("low", "medium", "high")}
# Of more modes than these each would be seen too seldom.
MOST = 6


@lru_cache(maxsize=8)
def _parsed(source: str) -> Any:
    from jinja2 import Environment, TemplateError

    # A tag of transformers that marks text, and changes nothing.
    plain = re.sub(r"{%-?\s*(?:end)?generation\s*-?%}", "", source)
    try:
        return Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except TemplateError as error:
        raise ArgumentError(
            f"tokenizer: its chat template cannot be read ({error.message!r:.200}); "
            "give it another chat_template"
        ) from error


def variables(source: str) -> set[str]:
    """The names that a template looks up in what it is given."""
    from jinja2.meta import find_undeclared_variables

    return set(find_undeclared_variables(_parsed(source)))


def options_of(
    source: str, rendered: Callable[[Options], str | None]
) -> Iterator[Options]:
    """The options of each mode: none, and those with which something else is rendered.

    Parameters
    ----------
    source : str
        The template.
    rendered : callable
        What it makes of some options; None where it fails with them.
    """
    plain = rendered({}) or ""
    seen = {plain}
    yield {}
    for name in sorted(variables(source)):
        for value in () if CONTENT.search(name) else _values(source, name):
            text = rendered({name: value})
            # A value that is printed is content, unless the template compares it.
            printed = isinstance(value, bool) and str(value) in (text or "")
            if text and text not in seen and not printed and len(seen) < MOST:
                seen.add(text)
                yield {name: value}


def _values(source: str, name: str) -> list[Any]:
    """What a variable may be: true, false, or what the template compares it with."""
    from jinja2 import nodes

    found = [True, False, *VALUES.get(name, ())]
    for comparison in _parsed(source).find_all(nodes.Compare):
        other = [one.expr for one in comparison.ops]
        sides = [comparison.expr, *other]
        if any(isinstance(one, nodes.Name) and one.name == name for one in sides):
            constants = [one.value for one in sides if isinstance(one, nodes.Const)]
            found += [one for one in constants if isinstance(one, str)]
    return list(dict.fromkeys(found))
