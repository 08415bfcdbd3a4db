# SPDX-License-Identifier: Apache-2.0
"""Words and patterns followed letter by letter through what tokens write."""
