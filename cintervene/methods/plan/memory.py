# SPDX-License-Identifier: Apache-2.0
"""What each phase of a method holds: docs/scaling.md has the formulas."""

from __future__ import annotations

from dataclasses import dataclass

from cintervene.activations.layer_stream import BATCH_TOKENS
from cintervene.activations.scoring import KEPT_BYTES, ROWS
from cintervene.methods.common.gated_mlp import BLOCK
from cintervene.methods.common.gradient_metric import CHUNK
from cintervene.methods.gate.config import GateConfig
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.hinge.costs import TOKENS as LIKELIEST
from cintervene.methods.pcr.hinge.places import CANDIDATES
from cintervene.methods.pcr.hinge.rows import PROMPT_STEP
from cintervene.methods.plan.material import EXAMPLE, Material
from cintervene.methods.plan.shape import ModelShape
from cintervene.methods.tsr.layer_ball import OUTPUTS
from cintervene.models.unembedding import HELD, TOKENS
from cintervene.models.weights import OUTPUTS as ROUNDED
from cintervene.solvers import packed

__all__ = ["LIBRARIES", "Phase", "Sizes", "phases_of"]

# Resident bytes of a process that has imported torch, transformers and the package, and
# run a model once.
LIBRARIES = 480 * 10**6
# Sequences that are answered at a time.
ANSWERED = 64
# Arrays as large as a block of logits that are held at once: to count tokens, and to
# compare with those before.
LOGITS, COMPARED = 4, 6
# The same where derivatives are taken.
GRAPH = 6


@dataclass(frozen=True)
class Phase:
    """What a phase holds beside the libraries and the model.

    Attributes
    ----------
    name : str
    algebra : float
        Bytes on the host: float64 arrays of solvers.
    tensors : float
        Bytes where the model is: hidden states, logits, weights in float32.
    """

    name: str
    algebra: float
    tensors: float


@dataclass(frozen=True)
class Sizes:
    """What the terms of all phases are made of.

    Attributes
    ----------
    shape : ModelShape
    material : Material
    d_in : int
        Of the projections that are changed.
    changed : int
        How many layers are changed.
    above : int
        Layers from the first of them on.
    """

    shape: ModelShape
    material: Material
    d_in: int
    changed: int
    above: int

    @property
    def head(self) -> int:
        """The unembedding in float32, or some rows of it, if it is not stored so."""
        shape = self.shape
        whole = 0 if shape.number >= 4 else 4 * shape.vocabulary * shape.hidden
        return whole if whole <= HELD else 2 * 4 * TOKENS * shape.hidden

    def logits(self, rows: int = ROWS, arrays: int = LOGITS) -> int:
        """Some arrays of logits."""
        return 4 * rows * self.shape.vocabulary * arrays

    def states(self, tokens: int) -> int:
        """Hidden states of tokens that a layer was run on: before and after it."""
        return 2 * tokens * self.shape.hidden * self.shape.number

    @property
    def layer(self) -> int:
        """What a batch of tokens makes of memory in one layer."""
        shape = self.shape
        return BATCH_TOKENS * (4 * shape.inner + 8 * shape.hidden) * shape.number

    @property
    def answering(self) -> int:
        """Keys and values of a batch of prompts and answers, and its logits."""
        shape, material = self.shape, self.material
        if not material.answered:
            return 0
        tokens = min(ANSWERED, material.answered) * (60 + material.answer)
        kept = tokens * shape.kept * shape.layers * shape.number
        return kept + self.layer + self.logits(ANSWERED)

    @property
    def graph(self) -> int:
        """What derivatives of a batch of examples need, its logits among it."""
        rows = BATCH_TOKENS // EXAMPLE * self.material.wanted
        return self.above * self.layer + self.logits(rows, GRAPH)

    @property
    def triangle(self) -> int:
        """Half of d_in x d_in in float64, and the blocks on its diagonal."""
        return 4 * self.d_in * (self.d_in + packed.BLOCK)

    def norm(self, rows: int) -> int:
        """The norm of one layer's change, once it is made."""
        few = 2 * rows <= self.d_in
        return 8 * rows * (self.d_in + rows) if few else self.triangle

    def gathering(self, rows: int) -> int:
        """What there is beside that while it is made."""
        row = self.d_in * self.shape.number
        if 2 * rows <= self.d_in:
            return rows * row
        # Beyond half of the dimensions inputs are added to the sum, some at a time.
        return (self.d_in // 2 + CHUNK) * row


def phases_of(config: object, sizes: Sizes, neurons: bool) -> list[Phase]:
    """The phases of a method.

    Parameters
    ----------
    config : MethodConfig
    sizes : Sizes
    neurons : bool
        Whether PCR changes neurons, not matrices.
    """
    prompts = Phase("prompts", 0, sizes.answering)
    if isinstance(config, PCRConfig):
        if not neurons:
            return [prompts, *_matrices(sizes)]
        # For where each word begins and for where it goes on, at most.
        most = min(config.max_rank // 2, 2 * len(config.forbid or ()))
        return [prompts, *_neurons(sizes, most)]
    if isinstance(config, GateConfig):
        return [prompts, *_gate(sizes)]
    return [prompts, *_descent(sizes, config)]


def _tuning(sizes: Sizes) -> float:
    compared = sizes.material.compared
    base = min(sizes.logits(compared, 1), KEPT_BYTES)
    compared = min(ROWS, compared)
    states = sizes.states(sizes.material.tune)
    return sizes.head + sizes.logits(compared, COMPARED) + base + states


def _matrices(sizes: Sizes) -> list[Phase]:
    material, shape, d_in = sizes.material, sizes.shape, sizes.d_in
    kept, rows = material.kept, material.constrained
    norms = sizes.changed * sizes.norm(kept)
    streams = sizes.states(material.tokens)
    # What is to stay is gone once statistics are there.
    said = sizes.states(material.forget + material.near)
    # Inputs in float64, and times the inverse of the norm: of the first layer's for
    # good; their products, and constraints.
    solved = 8 * rows * (3 * d_in + 2 * d_in + 3 * rows) + 20 * ROUNDED * d_in
    metric = 8 * 5 * shape.hidden**2
    first = 8 * rows * (d_in + rows) + metric
    return [
        Phase("capture", norms + sizes.gathering(kept), streams + sizes.layer),
        Phase("statistics", norms, streams + sizes.head + sizes.logits()),
        Phase("solve", norms + solved + metric, said + sizes.layer),
        Phase("tune", norms + first, said + _tuning(sizes)),
    ]


def _neurons(sizes: Sizes, given_up: int) -> list[Phase]:
    material, shape = sizes.material, sizes.shape
    hidden, weights = shape.hidden, shape.hidden * shape.inner
    looked_at = material.tokens // PROMPT_STEP + material.kept
    rows = 4 * hidden * (looked_at + material.kept + material.constrained)
    # Neurons are widened before the sum is there. Then rows of its inverse, of those
    # that are looked at closely, in float64, while they are solved for and after.
    widened = 10 * weights
    activations = sizes.triangle + 8 * weights + 16 * BLOCK * shape.inner
    candidates = min(CANDIDATES * given_up, shape.inner)
    closely = 20 * candidates * shape.inner
    # And the logits that these move, of all tokens that are likely anywhere.
    closely += 4 * candidates * min(shape.vocabulary, LIKELIEST * material.kept)
    found = 3 * 8 * hidden**2
    return [
        Phase("capture", rows, sizes.states(material.tokens) + sizes.layer),
        Phase("statistics", rows, sizes.head + sizes.logits()),
        Phase("neurons", rows + found + max(widened, activations + closely), 0),
        Phase("detectors", rows + found + 16 * hidden * BLOCK, 0),
        Phase("tune", rows, _tuning(sizes)),
    ]


def _descent(sizes: Sizes, config: object) -> list[Phase]:
    material, shape, d_in = sizes.material, sizes.shape, sizes.d_in
    plain = getattr(config, "ball", "preserve") == "frobenius"
    weight = d_in * shape.hidden
    kept = material.kept + material.benign // 2
    norms = 0 if plain else sizes.changed * sizes.norm(kept)
    gathering = 0 if plain else sizes.gathering(kept)
    square = 8 * shape.hidden**2
    # Of each a root and its inverse; while they are made, some more.
    fishers = 2 * sizes.changed * square
    streams = sizes.states(material.tokens) // 2
    graph = sizes.graph
    # The response, the change, and that in float32. A step has some outputs of the
    # inputs beside them, and a gradient; in the end the change once more.
    balls = sizes.changed * 20 * weight
    some = 4 * 8 * OUTPUTS * d_in
    gradients = sizes.changed * 4 * weight
    return [
        Phase("capture", norms + gathering + fishers, streams + sizes.layer),
        Phase("sampling", norms + fishers + 3 * square, streams + graph),
        Phase("solve", norms + fishers + balls + some, streams + graph + gradients),
        Phase("tune", norms + fishers + balls, streams + graph + gradients),
        Phase("change", norms + fishers + balls + sizes.changed * 8 * weight, streams),
    ]


def _gate(sizes: Sizes) -> list[Phase]:
    material, shape = sizes.material, sizes.shape
    weights = shape.hidden * shape.inner
    inputs = 4 * shape.hidden * material.tokens
    streams = sizes.states(material.tokens) + inputs
    fitted = 8 * shape.hidden * min(12_000, material.tokens) * 3
    graph = sizes.graph
    return [
        Phase("capture", 0, streams + sizes.layer),
        Phase("idlest", 0, streams + 10 * weights + 16 * BLOCK * shape.inner),
        Phase("detectors", fitted, streams),
        Phase("solve", 0, streams + graph),
        Phase("tune", 0, streams + graph),
    ]
