# SPDX-License-Identifier: Apache-2.0
"""Directive `command-help`: what `--help` of each command prints."""

from docutils import nodes
from docutils.parsers.rst import Directive

from cintervene.cli.arguments.parser import COMMANDS, build_parser


class CommandHelp(Directive):
    """A section for the command line and one for each command."""

    def run(self):
        """Return the sections."""
        parser = build_parser()
        (choices,) = (
            one.choices for one in parser._actions if isinstance(one.choices, dict)
        )
        texts = {"cintervene": parser.format_help()}
        texts |= {
            f"cintervene {name}": choices[name].format_help() for name in COMMANDS
        }
        return [self.section(name, text) for name, text in texts.items()]

    def section(self, name, text):
        """A heading and the help below it."""
        section = nodes.section(ids=[nodes.make_id(name)])
        section += nodes.title(name, name)
        section += nodes.literal_block(text, text, language="text")
        self.state.document.note_implicit_target(section, section)
        return section


def setup(app):
    """Add the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
