# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as automata over characters, followed through tokens."""
