# SPDX-License-Identifier: Apache-2.0
"""PCR, point-constrained regions: the least change that keeps outputs away."""
