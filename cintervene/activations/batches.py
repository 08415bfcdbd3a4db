# SPDX-License-Identifier: Apache-2.0
"""Token sequences as they come in: checked, positions resolved, batches planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from cintervene.errors import ArgumentError

Positions = Sequence[int] | slice


def check_sequences(
    sequences: Sequence[Sequence[int]], model: nn.Module
) -> list[list[int]]:
    """Refuse ids that the model would fail on, or worse, would not fail on."""
    config: Any = model.config
    config = config.get_text_config()
    size = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    limit = getattr(config, "max_position_embeddings", None)
    ids = [[int(token) for token in one] for one in sequences]
    if not ids:
        raise ArgumentError(
            "sequences: got none, expected at least one list of token ids"
        )
    for index, one in enumerate(ids):
        if not one:
            raise ArgumentError(
                f"sequences[{index}]: got no tokens, expected at least one"
            )
        if limit is not None and len(one) > limit:
            raise ArgumentError(
                f"sequences[{index}]: got {len(one)} tokens, expected at most "
                f"{limit}, the model's context; cut it"
            )
        if not 0 <= min(one) <= max(one) < size:
            raise ArgumentError(
                f"sequences[{index}]: got token ids from {min(one)} to {max(one)}, "
                f"expected [0, {size - 1}]; use the model's own tokenizer"
            )
    return ids


def resolve_positions(
    name: str, positions: Sequence[Positions] | None, ids: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Turn positions, slices and negative ones too, into indices; None means none."""
    if positions is None:
        return [[] for _ in ids]
    if len(positions) != len(ids):
        raise ArgumentError(
            f"{name}: got {len(positions)} entries, expected one for each of the "
            f"{len(ids)} sequences"
        )
    resolved = []
    for index, (which, one) in enumerate(zip(positions, ids, strict=True)):
        length = len(one)
        if isinstance(which, slice):
            resolved.append(list(range(length))[which])
            continue
        for position in which:
            if not -length <= position < length:
                raise ArgumentError(
                    f"{name}[{index}]: got position {position}, expected one of the "
                    f"{length} tokens of the sequence"
                )
        resolved.append([int(position) % length for position in which])
    return resolved


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with; at least one sequence."""
    ordered = sorted(list(one) for one in sequences)
    first, last = ordered[0], ordered[-1]
    pairs = enumerate(zip(first, last, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(last)))


def shared_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many first tokens can be run once: one at least is left in each sequence."""
    return min(common_length(sequences), min(map(len, sequences)) - 1)


def padded(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Token sequences, padded on the right to the length of the longest.

    Any token will do as padding; repeating one keeps "pad token" warnings away.
    """
    length = max(map(len, sequences))
    return [[*one, *([*one[:1]] * (length - len(one)))] for one in sequences]


def group_by_length(
    lengths: Sequence[int],
    batch_tokens: int,
    similar: float = 0.8,
    *,
    most: int | None = None,
) -> list[list[int]]:
    """Group sequences of similar length: long ones first, little padding in a batch.

    Parameters
    ----------
    lengths : sequence of int
    batch_tokens : int
        Largest size of a batch, padding included.
    similar : float
        The least length in a batch, relative to the longest.
    most : int, optional
        Sequences in a batch.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[groups[-1][0]] if groups else 0
        count = len(groups[-1]) if groups else 0
        fits = 0 < count != most and longest * (count + 1) <= batch_tokens
        if fits and lengths[index] >= similar * longest:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
