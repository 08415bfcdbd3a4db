# SPDX-License-Identifier: Apache-2.0
"""TSR, towards the safe region: a small change after which requests are refused."""
