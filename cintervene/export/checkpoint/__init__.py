# SPDX-License-Identifier: Apache-2.0
"""Changed copies of a model's files."""
