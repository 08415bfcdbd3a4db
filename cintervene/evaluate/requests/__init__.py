# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests, measured before and after."""
