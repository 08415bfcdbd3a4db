# SPDX-License-Identifier: Apache-2.0
"""The sizes of a model that decide what a defence of it costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cintervene.errors import ModelError
from cintervene.models.weights import dtype_name

__all__ = ["ModelShape", "config_of"]

# Bytes of a number, by what configurations call its type.
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a causal language model.

    Attributes
    ----------
    hidden : int
        Width of the residual stream, which is d_out.
    inner : int
        Neurons of an MLP, d_in of a down projection.
    heads : int
        Width of all attention heads, d_in of an o_proj.
    kept : int
        Keys and values of a token in one layer.
    layers, vocabulary : int
    number : int
        Bytes of a weight.
    model : int
        Bytes of all weights.
    """

    hidden: int
    inner: int
    heads: int
    kept: int
    layers: int
    vocabulary: int
    number: int
    model: int

    @classmethod
    def of(cls, model: nn.Module | str | Path) -> ModelShape:
        """Read the sizes off a model's configuration; nothing is computed or loaded.

        Raises
        ------
        ModelError
            The directory has no configuration, or that does not name the sizes.
        """
        if isinstance(model, nn.Module):
            found = cls._of_config(config_of(model), type(model).__name__)
            tensors = [*model.parameters(), *model.buffers()]
            numbers = {id(one): one.nbytes for one in tensors}
            widest = next(model.parameters()).element_size()
            return found._with(widest, sum(numbers.values()))
        found = cls._of_config(config_of(model), model)
        directory = Path(model)
        for pattern in WEIGHTS:
            files = list(directory.glob(pattern))
            if files:
                return found._with(found.number, sum(f.stat().st_size for f in files))
        return found

    def _with(self, number: int, model: int) -> ModelShape:
        sizes = {**vars(self), "number": number, "model": model}
        return ModelShape(**sizes)

    @classmethod
    def _of_config(cls, config: Any, name: object) -> ModelShape:
        text = config.get_text_config()

        def size(*names: str) -> int:
            found = [getattr(text, one, None) for one in names]
            known = [one for one in found if isinstance(one, int)]
            if not known:
                raise ModelError(
                    f"{name}: its configuration has none of {', '.join(names)}, from "
                    "which a plan is made; leave the plan out"
                )
            return known[0]

        hidden, layers = size("hidden_size"), size("num_hidden_layers")
        vocabulary, n_heads = size("vocab_size"), size("num_attention_heads")
        width = getattr(text, "head_dim", None) or hidden // n_heads
        groups = getattr(text, "num_key_value_heads", None) or n_heads
        inner = getattr(text, "intermediate_size", None) or 4 * hidden
        dtype = getattr(text, "dtype", None)
        # Configurations hold the type or its name, or none.
        known = dtype if isinstance(dtype, str) else dtype and dtype_name(dtype)
        number = BYTES.get(str(known), 4)
        heads, kept = n_heads * width, 2 * groups * width
        layer = hidden * (2 * heads + kept) + 3 * hidden * inner
        tied = getattr(text, "tie_word_embeddings", False)
        weights = layers * layer + vocabulary * hidden * (1 if tied else 2)
        return cls(
            hidden, inner, heads, kept, layers, vocabulary, number, number * weights
        )

    def d_in(self, matrix: str) -> int:
        """Inputs of the projection that is changed."""
        return self.inner if matrix == "down_proj" else self.heads


def config_of(model: nn.Module | str | Path) -> Any:
    """What transformers knows of a model, or of one in a directory."""
    if isinstance(model, nn.Module):
        return model.config
    from cintervene.models.pretrained import read_config

    return read_config(str(model), local_files_only=True)
