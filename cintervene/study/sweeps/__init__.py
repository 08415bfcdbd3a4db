# SPDX-License-Identifier: Apache-2.0
"""Many settings of a method on one model, with what they share worked out once."""
