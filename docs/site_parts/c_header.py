# SPDX-License-Identifier: Apache-2.0
"""Directive `c-header FILE`: the declarations of a C header with their comments.

The header is written so that this is simple: sections begin with
`/* ---- name ---- */`, a comment at the beginning of a line describes the declarations
below it, and names of code stand between backticks.
"""

import re
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"/\* -+ (.*?) -+ \*/")
FUNCTION = re.compile(r"\b(civ_\w+)\(")
TYPE = re.compile(r"^typedef (struct|enum) (civ_\w+)")
MACRO = re.compile(r"^#define (CIV_\w+)")


class Declaration(NamedTuple):
    """A declaration, and the comment that stands above it."""

    comment: str
    code: str


def read_header(text: str) -> tuple[str, dict[str, list[Declaration]]]:
    """Return the comment about the whole header, and each section's declarations."""
    about, found, comment, section = "", {}, "", None
    lines = iter(text[text.index("*/") + 2 :].splitlines())
    for line in lines:
        if named := SECTION.match(line):
            section = found.setdefault(named[1].strip(), [])
            comment = ""
        elif line.startswith("/*"):
            while "*/" not in line:
                line += "\n" + next(lines)
            comment = uncomment(line)
            about = about or comment
        elif section is not None and line and line != "#endif":
            while not is_whole(line):
                line += "\n" + next(lines)
            section.append(Declaration(comment, line))
        elif not line:
            comment = ""
    return about, found


def is_whole(code: str) -> bool:
    """Whether the lines read so far are a whole declaration."""
    if code.startswith("#"):
        return not code.endswith("\\")
    return code.endswith(";") and code.count("{") == code.count("}")


def uncomment(text: str) -> str:
    """The text of a comment, its paragraphs and its indented lines kept."""
    inner = re.sub(r"^/\*[ \n]?|\s*\*/$", "", text)
    return re.sub(r"^ \* ?", "", inner, flags=re.M).strip("\n")


def paragraphs(comment: str) -> list[nodes.Node]:
    """What a comment says; indented lines, which hold formulas, stay as they are."""
    found = []
    for block in re.split(r"\n\s*\n", comment):
        if block.startswith("    "):
            found.append(nodes.literal_block(block, block, language="text"))
            continue
        one = nodes.paragraph()
        for number, part in enumerate(block.strip().replace("\n", " ").split("`")):
            one += nodes.literal(part, part) if number % 2 else nodes.Text(part)
        found.append(one)
    return found


class CHeader(SphinxDirective):
    """The sections of a header, with an entry of the index for each name."""

    required_arguments = 1

    def run(self):
        """Return what the header says of itself, and its sections."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        about, sections = read_header(Path(path).read_text("utf-8"))
        return [
            *paragraphs(about),
            *(self.section(name, found) for name, found in sections.items()),
        ]

    def section(self, name, declarations):
        """A heading, and the declarations below it."""
        section = nodes.section(ids=[nodes.make_id(name)])
        section += nodes.title(name, name.capitalize())
        self.state.document.note_implicit_target(section, section)
        for one in declarations:
            section += self.entry(one)
        return section

    def entry(self, one):
        """A declaration as the domain of C has it, its comment below."""
        code = one.code
        if function := not code.startswith(("typedef", "#", "enum")):
            signature = " ".join(code.rstrip(";").split())
            head = f"c:function}} {signature}"
        elif named := TYPE.match(code):
            head = f"c:{named[1]}}} {named[2]}"
        elif named := MACRO.match(code):
            head = f"c:macro}} {named[1]}"
        else:
            head = None
        body = paragraphs(one.comment) if one.comment else []
        if not function:
            body.append(nodes.literal_block(one.code, one.code, language="c"))
        if head is None:
            return body
        found = self.parse_text_to_nodes(f"```{{{head}\n```\n")
        (described,) = (node for node in found if isinstance(node, addnodes.desc))
        described[-1].extend(body)
        return found


def setup(app):
    """Add the directive."""
    app.add_directive("c-header", CHeader)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
