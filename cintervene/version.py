# SPDX-License-Identifier: Apache-2.0
"""The version of the package, in this place only."""

__version__ = "0.1.0"
