# SPDX-License-Identifier: Apache-2.0
"""What a model can do before and after: instructions, and tasks of lm_eval."""
