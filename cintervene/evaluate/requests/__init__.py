# SPDX-License-Identifier: Apache-2.0
"""Refusals of requests, and drift of other answers, before and after."""
