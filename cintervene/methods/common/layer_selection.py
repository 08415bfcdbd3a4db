# SPDX-License-Identifier: Apache-2.0
"""At which layers harmful requests are best told from harmless ones.

A change of a layer can make a difference between requests only as far as the layer's
inputs differ. A linear discriminant is fitted at each layer in question where the
answer is about to begin, and judged on requests that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cintervene import data
from cintervene.activations.layer_stream import LayerStream
from cintervene.errors import ModelError
from cintervene.methods.common.layer_scores import kept_scores
from cintervene.models.decoder import Decoder
from cintervene.models.targets import Target, explanation_of
from cintervene.models.weights import as_floats
from cintervene.prompts.chat import render
from cintervene.utils.arrays import Floats
from cintervene.utils.literals import Matrix
from cintervene.utils.progress import Progress, counting

__all__ = ["best_run", "layers_in_question", "most_separating", "separation"]

# Where to look: behind the first layers, which know words rather than meanings, and
# before the last, from which a refusal can no longer unfold.
FIRST, LAST = 0.33, 0.6
# Requests of each kind to fit and to judge on.
FITTED, JUDGED = 100, 40
RIDGE = 0.1
# Layers to change: together they tell requests apart better than each alone.
COUNT = 5
# Neighbours know much the same.
APART = 2


def layers_in_question(depth: int) -> range:
    """The layers of a model so deep that are compared."""
    last = min(depth - 1, round(LAST * depth))
    return range(min(last, round(FIRST * depth)), last + 1)


def most_separating(
    decoder: Decoder,
    tokenizer: Any,
    matrix: Matrix,
    progress: Progress,
    count: int = COUNT,
    requests: tuple[int, int] = (FITTED, JUDGED),
    layers: Sequence[int] | None = None,
) -> list[Target]:
    """Return the projections of the best `count` evenly spaced layers, lowest first.

    `requests` of each kind, where there are as many, are fitted to and judged on. What
    comes out is kept for the next time: see `kept_scores`. `layers` are compared, by
    default all `layers_in_question`.

    Raises
    ------
    ModelError
        None of the layers in question can be changed.
    """
    if layers is None:
        layers = layers_in_question(decoder.n_layers)
    candidates = explanation_of(decoder, layers, matrix)
    targets = candidates.targets
    if not targets:
        raise ModelError(next(iter(candidates.refused.values())))
    fitted = _requests("train", requests[0])
    judged = _requests("tune", requests[1])
    texts = [text for text, _ in (*fitted, *judged)]
    harmful = np.array([bad for _, bad in (*fitted, *judged)])
    ids = [render(tokenizer, text) for text in texts]

    scores = kept_scores(
        decoder.model,
        [target.name for target in targets],
        {
            "ids": ids, "harmful": harmful.tolist(), "fitted": len(fitted),
            "ridge": RIDGE,
        },
        lambda: _measured(
            LayerStream(
                decoder, ids, targets[0].layer, wanted=[[-1]] * len(ids), matrix=matrix
            ),
            targets, harmful, len(fitted), progress,
        ),
    )  # fmt: skip
    return [targets[index] for index in best_run(scores, count)]


def _measured(
    stream: LayerStream,
    targets: Sequence[Target],
    harmful: npt.NDArray[np.bool_],
    fitted: int,
    progress: Progress,
) -> list[float]:
    """The separation of what each target reads."""
    report = counting(progress, "comparing layers", len(targets))
    scores = []
    for target in targets:
        rows = as_floats(stream.run(target.layer).inputs)
        scores.append(separation(rows, harmful, fitted))
        report(1)
    return scores


def best_run(scores: Sequence[float], count: int = COUNT) -> range:
    """The evenly spaced indices, as many as fit, with the best mean score."""
    count = min(count, (len(scores) - 1) // APART + 1)
    length = APART * (count - 1) + 1
    starts = range(len(scores) - length + 1)
    runs = [range(start, start + length, APART) for start in starts]
    return max(runs, key=lambda run: sum(scores[index] for index in run))


def separation(rows: Floats, harmful: npt.NDArray[np.bool_], fitted: int) -> float:
    """Area under the curve of a ridge discriminant on the rows it was not fitted to.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
    harmful : ndarray of bool, shape (n,)
    fitted : int
        The first rows, which are fitted to.
    """
    train, test = rows[:fitted], rows[fitted:]
    labels = np.where(harmful[:fitted], 1.0, -1.0)
    train = train - (centre := train.mean(axis=0))
    gram = train @ train.T
    gram[np.diag_indices(fitted)] += RIDGE * np.trace(gram) / fitted
    scores = (test - centre) @ (train.T @ np.linalg.solve(gram, labels))
    bad, good = scores[harmful[fitted:]], scores[~harmful[fitted:]]
    return float(np.mean(bad[:, None] > good))


def _requests(split: data.Split, count: int) -> list[tuple[str, bool]]:
    """As many of each kind: harmful, borderline and everyday requests."""
    harmful = [(p.text, True) for p in data.harmful_prompts(split)[:count]]
    border = [(p.text, False) for p in data.borderline_prompts(split)[:count]]
    plain = [(p.text, False) for p in data.benign_prompts(split)[:count]]
    return harmful + border + plain
