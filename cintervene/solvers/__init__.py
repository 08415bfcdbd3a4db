# SPDX-License-Identifier: Apache-2.0
"""The paper's problems on arrays: PCR, its certificate, TSR, ARR on linear heads."""
