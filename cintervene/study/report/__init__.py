# SPDX-License-Identifier: Apache-2.0
"""The report of a study: tables, plots, pages."""
