# SPDX-License-Identifier: Apache-2.0
"""The site: the pages that are read in the repository too, notebooks, the reference.

Its source directory is the root of the repository, so that links between pages lead
to the same places here and there. Build it with docs/site.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site_parts"))

from cintervene.version import __version__

# How wide the commands' help is printed.
os.environ["COLUMNS"] = "88"

project = "cintervene"
author = "the cintervene contributors"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    # In docs/site_parts.
    "command_help",
    "c_header",
    "page_text",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "notebooks/*.ipynb",
    "benchmarks/*.md",
    "changes/README.md",
]
exclude_patterns = [".*", "build", "demo"]
# What a link to a folder leads to.
folder_pages = {"examples": "docs/examples", "notebooks": "docs/examples"}

html_theme = "furo"
html_title = f"cintervene {__version__}"
html_additional_pages = {"index": "first.html"}
templates_path = ["site_parts"]
html_copy_source = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True

# Docstrings write code, names among it, between single backticks.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
autodoc_default_options = {"members": True}
napoleon_google_docstring = False
# One list, as of parameters, not an entry of the index for each.
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 88
