# SPDX-License-Identifier: Apache-2.0
"""Which tensors of two models differ, by how much and why."""
