# SPDX-License-Identifier: Apache-2.0
"""The arguments of the commands."""
