# SPDX-License-Identifier: Apache-2.0
"""What a defence will cost, before it is made."""
