# SPDX-License-Identifier: Apache-2.0
"""PCR with its hinge: neurons that open only where a forbidden word is about to be."""
