# SPDX-License-Identifier: Apache-2.0
"""PCR with its hinge for a whole model: neurons fitted, strengths chosen by word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from cintervene import data
from cintervene.activations.layer_stream import LayerStream
from cintervene.errors import ModelError
from cintervene.intervention.intervention import Intervention
from cintervene.methods.common.gated_mlp import GatedMLP, as_stored
from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
from cintervene.methods.common.output_metric import token_statistics
from cintervene.methods.common.result import Trial, make_chosen
from cintervene.methods.pcr.config import PCRConfig
from cintervene.methods.pcr.hinge.columns import Columns, solve_columns
from cintervene.methods.pcr.hinge.detectors import WordNeurons, fit_neurons
from cintervene.methods.pcr.hinge.groups import grouped
from cintervene.methods.pcr.hinge.places import GivenUp, give_up
from cintervene.methods.pcr.hinge.rows import HingeRows
from cintervene.methods.pcr.resolve import choose_layers
from cintervene.methods.pcr.strength import (
    Measured,
    Tuning,
    WordLimits,
)
from cintervene.models.offload import has_offloaded
from cintervene.models.parts import ModelParts
from cintervene.models.targets import Target
from cintervene.prompts.answerer import Answerer
from cintervene.prompts.calibration import Calibration, neighbour_answers
from cintervene.prompts.neighbours import neighbours
from cintervene.prompts.spelling import text_tokenizer
from cintervene.prompts.target_spans import TargetSpan
from cintervene.prompts.word_sentences import given_sentences, word_sentences
from cintervene.solvers.update import LowRankUpdate
from cintervene.utils.arrays import Floats
from cintervene.utils.clock import Clock
from cintervene.utils.kept import kept
from cintervene.utils.progress import Progress, counting

__all__ = ["Hinge", "hinged_mlp", "most_neurons", "sentence_requests"]

# Neurons of an MLP that may be changed, as a share; and of long lists, for which there
# are so many for each word.
SHARE, MOST_SHARE, EACH_WORD = 1 / 20, 1 / 12, 3 / 4
# Nats that tokens are lowered by at first, where a neuron's activation is 1.
FIRST = 20.0
# Times `min_effect` that each word is to reach on the tuning split.
EACH = 100.0
# How often words that have not reached it are asked for more, by what factors, and up
# to how much.
ROUNDS = 9
LEAST_FACTOR, MOST_FACTOR, MOST = 1.1, 1.5, 50.0
# How much earlier the neurons of words open each time that have not come half the way
# at this strength, and how much at most, in units of a typical opening.
STRONG, EARLIER, EARLIEST = 30.0, 0.12, 0.6
# How much later all open, and what is left of their strengths, each time where the
# limits are crossed by the first that was asked.
LATER, LESS = 0.15, 0.7
# Rows of benign text to take statistics of, and to choose neurons on.
STATISTICS_ROWS, IDLE_ROWS = 3072, 16384


def hinged_mlp(parts: ModelParts, config: PCRConfig) -> GatedMLP | None:
    """The MLP whose neurons are changed, or None where a matrix is.

    Raises
    ------
    ModelError
        `hinge` is "on", and the MLP cannot be changed so.
    """
    asked = config.hinge == "on"
    if not config.wants_neurons:
        return None
    try:
        able = parts.changeable("down_proj", 1)
        layer = choose_layers(config.layers, parts.n_layers, "forbid", able)[-1]
        mlp = find_gated_mlp(parts.decoder, layer)
    except ModelError as error:
        if asked:
            raise ModelError(
                f'hinge: got "on"; {error}; or hinge="off" changes a whole matrix'
            ) from error
        return None
    if mlp.down.after is None:
        return mlp
    if asked:
        raise ModelError(
            f"{mlp.block.name}: a norm follows this MLP and takes out how far its "
            'neurons open; use hinge="off"'
        )
    return None


def most_neurons(mlp: GatedMLP, config: PCRConfig) -> int:
    """How many neurons may be changed.

    Each takes two ranks of the down projection: what it did, and what it does.
    """
    if config.max_neurons == "auto":
        assert config.forbid is not None
        least, most = (int(share * mlp.down.d_in) for share in (SHARE, MOST_SHARE))
        wanted = min(max(least, int(EACH_WORD * len(config.forbid))), most)
    else:
        wanted = min(int(config.max_neurons), mlp.down.d_in // 2)
    return max(1, min(wanted, config.max_rank // 2))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is asked of each word's neuron.

    Attributes
    ----------
    strengths : ndarray, shape (words,)
        Nats that its tokens are lowered by at a typical opening.
    eager : ndarray, shape (words,)
        How much earlier it opens; see `WordNeurons.projections`.
    """

    strengths: Floats
    eager: Floats

    def same_as(self, other: _Asked) -> bool:
        """Whether nothing else is asked."""
        pairs = (self.strengths, other.strengths), (self.eager, other.eager)
        return all(np.array_equal(*pair) for pair in pairs)

    def more(self, risen: Floats, goal: float) -> _Asked:
        """Ask more of the words that have risen by less than the goal, in nats."""
        factors = np.clip(goal / np.maximum(risen, 1e-3), LEAST_FACTOR, MOST_FACTOR)
        factors = np.where(risen < goal, factors, 1.0)
        stuck = (risen < goal / 2) & (self.strengths >= STRONG)
        earlier = np.where(stuck, EARLIER, 0.0)
        return _Asked(
            np.minimum(self.strengths * factors, MOST),
            np.minimum(self.eager + earlier, EARLIEST),
        )

    def less(self) -> _Asked:
        """Ask less of all words."""
        return _Asked(self.strengths * LESS, self.eager - LATER)


@dataclass(frozen=True, eq=False)
class _Neurons:
    """All but the strengths."""

    given_up: GivenUp
    neurons: WordNeurons
    columns: Columns


class Hinge:
    """Neurons that open where a forbidden word is about to be said.

    Parameters
    ----------
    parts : ModelParts
    tokenizer
    mlp : GatedMLP
    config : PCRConfig
        With texts checked and "auto" resolved, but for layers and `strength`.
    answer : Answerer
        Of the model.
    clock : Clock
    progress : callable
    """

    def __init__(
        self,
        parts: ModelParts,
        tokenizer: Any,
        mlp: GatedMLP,
        config: PCRConfig,
        answer: Answerer,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._parts, self._tokenizer, self._mlp = parts, tokenizer, mlp
        self._answer = answer
        self._config = replace(config, hinge="on", layers=[mlp.block.layer])
        self._clock, self._progress = clock, progress
        assert config.forbid is not None
        self._words = list(config.forbid)

    def solve(self, calibration: Calibration) -> Intervention:
        """Fit the neurons, and ask more of the weakest words in turns."""
        with self._clock.phase("prompts"):
            calibration = kept(
                "sentences", (calibration, self._config.texts),
                partial(self._with_sentences, calibration),
            )  # fmt: skip
        layer = self._mlp.block.layer
        with self._clock.phase("capture"):
            rows, to_tune_on = kept(
                "hinge rows", (calibration, layer), partial(self._rows, calibration)
            )
        with self._clock.phase("solve"):
            found = kept(
                "neurons", (calibration, self._config.without_strength()),
                partial(self._fit, rows),
            )  # fmt: skip
        limits = WordLimits(
            self._config.min_effect, self._config.max_kl, self._config.max_benign_loss
        )
        with self._clock.phase("tune"):
            tuning = Tuning.shared(
                self._parts, calibration, layer, self._mlp.block, to_tune_on
            )
            tried = self._tune(tuning, found, limits)
        _, measured = _best(tried, limits)
        return make_chosen(
            self._parts.model,
            [self._trial(found, limits, *one) for one in tried],
            measured.point,
            self._config,
            self._clock,
            {
                "neurons": len(found.given_up.places),
                "certified": found.columns.certified,
            },
        )

    def _trial(
        self, found: _Neurons, limits: WordLimits, asked: _Asked, measured: Measured
    ) -> Trial:
        """One round of `_tune`, and what it asked of each word."""
        strengths = zip(self._words, asked.strengths.tolist(), strict=True)
        return Trial(
            measured.point,
            measured.point.strain(limits) <= 1.0,
            partial(self._updates, found, asked),
            {
                "strength": measured.point.strength,
                "strengths": dict(strengths),
                "ratios": {word: _exp(nats) for word, nats in measured.by_word.items()},
            },
        )

    def _with_sentences(self, calibration: Calibration) -> Calibration:
        """Calibration texts, the model's own about the words, and their neighbours."""
        size = self._config.calibration
        spans = self._sentences()
        near = neighbours(
            self._parts.unembedding, text_tokenizer(self._tokenizer), self._words,
            size.neighbours,
        )  # fmt: skip
        beside = neighbour_answers(self._tokenizer, near)
        return replace(
            calibration,
            forget=[*calibration.forget, *spans],
            near_negatives=[*calibration.near_negatives, *beside],
        )

    def _sentences(self) -> list[TargetSpan]:
        """Texts in which the words are said unasked: those given, or the model's."""
        if self._config.answers is not None:
            return given_sentences(self._tokenizer, self._words, self._config.answers)
        size = self._config.calibration
        report = counting(
            self._progress, "writing sentences", size.sentences * len(self._words)
        )
        return word_sentences(
            self._answer, self._tokenizer, self._words, sentence_requests(),
            size.sentences, size.sentence_tokens, report,
        )  # fmt: skip

    def _rows(self, calibration: Calibration) -> tuple[HingeRows, list[LayerStream]]:
        """Rows to solve on, and texts to tune on that have come to the layer.

        They come together where the layers below are read from a disk for that, and
        would take up memory until then elsewhere.
        """
        parts = [calibration.forget, calibration.near_negatives, calibration.retain]
        offloaded = has_offloaded(self._parts.model)
        others = Tuning.asked(calibration) if offloaded else []
        texts = sum(map(len, parts)) + sum(len(one.spans) for one in others)
        report = counting(self._progress, "watching layers", texts)
        return HingeRows.gather(
            self._parts, self._mlp, self._words, calibration, report, others
        )

    def _fit(self, rows: HingeRows) -> _Neurons:
        """Choose neurons, and solve for what they read and add."""
        mlp, unembedding = self._mlp, self._parts.unembedding
        benign = rows.benign_states[:: -(-len(rows.benign_states) // STATISTICS_ROWS)]
        statistics = token_statistics(unembedding, benign)
        metric = statistics.metric_at(mlp.down, self._config.output_ridge)
        groups = grouped(rows, most_neurons(self._mlp, self._config))
        some = slice(None, None, -(-len(rows.benign) // IDLE_ROWS))
        inputs, states = torch.from_numpy(rows.benign[some]), rows.benign_states[some]
        given_up = give_up(mlp, unembedding, inputs, states, len(groups))
        report = counting(self._progress, "fitting neurons", len(groups))
        idle = mlp.neurons(given_up.places)
        neurons = fit_neurons(mlp, rows, groups, idle, report)
        columns = solve_columns(rows, groups, mlp.down, unembedding, statistics, metric)
        return _Neurons(given_up, neurons, columns)

    def _tune(
        self, tuning: Tuning, found: _Neurons, limits: WordLimits
    ) -> list[tuple[_Asked, Measured]]:
        """Ask more of the words that have risen least, as long as limits are kept.

        Of a long list, whose neurons each stand for many words, the first may cross
        them: then less is asked of all until they are kept.
        """
        fixed = self._config.strength
        rounds = ROUNDS if fixed == "auto" else 1
        report = counting(self._progress, "solving", rounds)
        first = FIRST if fixed == "auto" else float(fixed)
        words = len(self._words)
        asked = _Asked(np.full(words, first), np.zeros(words))
        goal = math.log(EACH * limits.effect)
        tried: list[tuple[_Asked, Measured]] = []
        kept_limits = False
        for _ in range(rounds):
            updates = self._updates(found, asked)
            measured = tuning.measure(updates, float(asked.strengths.mean()))
            tried.append((asked, measured))
            report(1)
            if measured.point.strain(limits) > 1.0:
                if kept_limits:
                    break
                asked = asked.less()
                continue
            kept_limits = True
            risen = np.array([measured.by_word[word] for word in self._words])
            more = asked.more(risen, goal)
            if (risen >= goal).all() or more.same_as(asked):
                break
            asked = more
        report(rounds - len(tried))
        return tried

    def _updates(
        self, found: _Neurons, asked: _Asked
    ) -> list[tuple[Target, LowRankUpdate]]:
        """The changes of the projections for what is asked of each word."""
        mlp, places, groups = self._mlp, found.given_up.places, found.neurons.groups
        strengths, eager = (
            np.array([of_words[group.words].max() for group in groups])
            for of_words in (asked.strengths, asked.eager)
        )
        added = torch.from_numpy(found.columns.displacements * strengths[:, None])
        replaced = mlp.replaced(
            places, *found.neurons.projections(eager), as_stored(added, mlp.down.dtype)
        )  # fmt: skip
        *rows, (down, update) = replaced
        return [*rows, (down, update + found.given_up.made_up)]


def sentence_requests() -> list[str]:
    """Requests to write about a word and to say it, by turns."""
    writing = data.sentence_templates()
    saying = [template.prompt for template in data.obedience_templates("train")]
    turns = range(len(saying))
    return [
        text for turn in turns for text in (writing[turn % len(writing)], saying[turn])
    ]


def _best(
    tried: Sequence[tuple[_Asked, Measured]], limits: WordLimits
) -> tuple[_Asked, Measured]:
    """The last that keeps the limits, or that which strains them least."""
    within = [one for one in tried if one[1].point.acceptable(limits)] or [
        one for one in tried if one[1].point.strain(limits) <= 1.0
    ]
    if within:
        return within[-1]
    return min(tried, key=lambda one: one[1].point.strain(limits))


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))
