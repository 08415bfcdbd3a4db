# SPDX-License-Identifier: Apache-2.0
"""Gates: a few neurons that recognise harmful requests and refuse them."""
