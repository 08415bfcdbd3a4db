# SPDX-License-Identifier: Apache-2.0
"""What is said to a model: words, requests and answers as tokens."""
