# SPDX-License-Identifier: Apache-2.0
"""Changes as adapters for peft and llama.cpp."""
