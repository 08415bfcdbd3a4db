# SPDX-License-Identifier: Apache-2.0
"""Talking with somebody at a terminal: a chat, and the menu after a defence."""
