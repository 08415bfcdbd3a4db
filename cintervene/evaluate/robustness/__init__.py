# SPDX-License-Identifier: Apache-2.0
"""Robustness of a change to quantisation, sampling, relearning and extraction."""
