# SPDX-License-Identifier: Apache-2.0
"""What is left of an effect under rounding, sampling, relearning and extraction."""
