# SPDX-License-Identifier: Apache-2.0
"""The methods: each a folder, described once in its `config.py` and registered here."""
