# SPDX-License-Identifier: Apache-2.0
"""Forward passes: hidden states, captured or resumed in the middle of a model."""
