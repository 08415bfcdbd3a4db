# SPDX-License-Identifier: Apache-2.0
"""The command line ``cintervene``."""

from cintervene.cli.entry import main

__all__ = ["main"]
