# SPDX-License-Identifier: Apache-2.0
"""Imported before anything that needs the extra `hf`, to say what is missing."""

from importlib.util import find_spec

for name in ("torch", "transformers", "safetensors"):
    if find_spec(name) is None:
        raise ImportError(
            f"cintervene.models needs {name}: pip install 'cintervene[hf]'", name=name
        )
