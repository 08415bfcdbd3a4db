# SPDX-License-Identifier: Apache-2.0
"""Judges of answers: refused, complied with, or broken."""
