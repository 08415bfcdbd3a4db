# SPDX-License-Identifier: Apache-2.0
"""Changes of weights as low-rank factors: made, applied, reverted, stored."""
