# SPDX-License-Identifier: Apache-2.0
"""Perplexity and use of forbidden words, and drift, before and after."""
