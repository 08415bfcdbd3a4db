# SPDX-License-Identifier: Apache-2.0
"""What the site makes of pages that are read in the repository as well.

- A comment `<!-- site` ... `-->` holds what the site alone shows.
- Notebooks are shown with the outputs that notebooks/run.py kept.
- Docstrings that name a page, such as docs/prompts.md, link to it.
- Code that names something of the package, such as `ci.defend`, leads to the reference.
- A link to a folder leads to the page about it.
"""

import json
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.util.logging import getLogger

LOGGER = getLogger(__name__)
FOR_THE_SITE = re.compile(r"^<!-- site\n(.*?)^-->$", re.M | re.S)
NAME = re.compile(r"ci\.([\w.]+)")
PAGE = re.compile(r"\b((?:docs|benchmarks)/[\w/]+)\.md\b")


def read_page(app, docname, source):
    """Complete the text of a page before it is parsed."""
    if docname.startswith("notebooks/"):
        try:
            source[0] = with_outputs(source[0], app.srcdir, Path(docname).name)
        except ValueError as error:
            LOGGER.warning(str(error), location=docname)
    else:
        source[0] = FOR_THE_SITE.sub(r"\1", source[0])


def with_outputs(text: str, root: str, name: str) -> str:
    """A notebook with the outputs that were kept of it, if any were."""
    notebook = json.loads(text)
    path = Path(root, "notebooks", "outputs", f"{name}.json")
    if not path.exists():
        return text
    kept = json.loads(path.read_text("utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell, one in zip(cells, kept, strict=True):
        if "".join(cell["source"]) != one["source"]:
            raise ValueError(f"{name}: a cell has changed; python notebooks/run.py")
        cell["outputs"] = one["outputs"]
    return json.dumps(notebook)


def link_pages(app, what, name, obj, options, lines):
    """Make links of the pages that a docstring names."""
    for number, line in enumerate(lines):
        lines[number] = PAGE.sub(r":doc:`\1.md </\1>`", line)


def lead_folders(app, doctree):
    """Let links to folders of the repository lead to the pages about them."""
    env, root = app.env, Path(app.srcdir).resolve()
    for node in doctree.findall(pending_xref):
        if node.get("reftype") != "myst" or node.get("refdomain") is not None:
            continue
        folder = Path(env.doc2path(env.docname)).parent.joinpath(node["reftarget"])
        page = app.config.folder_pages.get(os.path.relpath(folder.resolve(), root))
        if page is not None:
            node["refdomain"], node["reftarget"] = "doc", page
            node["reftargetid"] = None


def link_names(app, doctree):
    """Let code such as `ci.defend` lead to its entry in the reference."""
    for node in list(doctree.findall(nodes.literal)):
        named = NAME.fullmatch(node.astext())
        if named is None or isinstance(node.parent, (nodes.title, nodes.reference)):
            continue
        link = pending_xref(
            refdomain="py", reftype="obj", reftarget=f"cintervene.{named[1]}",
            refdoc=app.env.docname, refexplicit=True,
        )  # fmt: skip
        node.replace_self(link)
        link += node


def setup(app):
    """Connect all of it."""
    app.add_config_value("folder_pages", {}, "env")
    app.connect("source-read", read_page)
    # Before napoleon, which reads the same lines.
    app.connect("autodoc-process-docstring", link_pages, priority=100)
    app.connect("doctree-read", lead_folders)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
