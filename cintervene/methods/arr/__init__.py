# SPDX-License-Identifier: Apache-2.0
"""ARR, away from the risk region: harmful answers become unlikely."""
