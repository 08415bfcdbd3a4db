# SPDX-License-Identifier: Apache-2.0
"""Measurements as tables, plots and pages."""
