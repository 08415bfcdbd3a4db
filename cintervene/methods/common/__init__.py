# SPDX-License-Identifier: Apache-2.0
"""What several methods need: metrics of a layer's outputs, losses, sweeps."""
