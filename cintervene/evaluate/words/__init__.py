# SPDX-License-Identifier: Apache-2.0
"""What a change of forbidden words does, measured before and after."""
