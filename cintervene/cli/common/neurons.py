# SPDX-License-Identifier: Apache-2.0
"""What neurons of a model could be changed for, beside whole matrices."""

from __future__ import annotations

from dataclasses import dataclass

from cintervene.errors import ModelError
from cintervene.methods.gate.method import gated_mlps
from cintervene.methods.pcr import PCRConfig
from cintervene.methods.pcr.hinge.method import hinged_mlp
from cintervene.models.parts import ModelParts

__all__ = ["NeuronUses"]


@dataclass(frozen=True)
class NeuronUses:
    """Which methods may give neurons another task.

    Attributes
    ----------
    words : str
        Path of the MLP whose neurons `pcr` would give to words; empty where it changes
        whole matrices.
    requests : tuple of int
        Layers of which `gate` would choose one.
    refusal : str
        Why `gate` is refused where there are none.
    """

    words: str
    requests: tuple[int, ...]
    refusal: str = ""

    @classmethod
    def of(cls, parts: ModelParts) -> NeuronUses:
        """Look for gated MLPs where the methods would by themselves."""
        mlp = hinged_mlp(parts, PCRConfig(forbid=["word"]))
        words = "" if mlp is None else mlp.block.name
        try:
            return cls(words, tuple(gated_mlps(parts, "auto")))
        except ModelError as error:
            return cls(words, (), str(error))

    def __str__(self) -> str:
        pcr = (
            f"neurons of {self.words}"
            if self.words
            else "whole matrices, for want of a gated MLP with no norm behind it"
        )
        gate = (
            f"neurons of one of the layers {', '.join(map(str, self.requests))}"
            if self.requests
            else f"is refused: {self.refusal}"
        )
        return f"words (pcr): {pcr}\nrequests (gate): {gate}"
