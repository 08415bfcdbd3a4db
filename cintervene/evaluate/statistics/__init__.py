# SPDX-License-Identifier: Apache-2.0
"""Intervals, and paired comparisons."""
