# SPDX-License-Identifier: Apache-2.0
"""What becomes of requests, harmful and harmless, before and after a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from cintervene import data
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import divergence
from cintervene.data import BenignPrompt, HarmfulPrompt, Split
from cintervene.evaluate.phases import Phases
from cintervene.evaluate.report.table import (
    Section,
    change_row,
    kl_row,
    lay_out,
)
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import (
    Outcome,
    Paired,
    compare_outcomes,
    outcomes,
)
from cintervene.evaluate.statistics.intervals import (
    LEVEL,
    Estimate,
    bootstrap_mean,
)
from cintervene.evaluate.words.scores import (
    item_sums,
    token_counts,
)
from cintervene.intervention.intervention import Intervention
from cintervene.models.decoder import find_decoder
from cintervene.models.precision import quick_products
from cintervene.models.trace import evaluating
from cintervene.models.unembedding import find_unembedding
from cintervene.prompts.chat import (
    generate,
    render,
)
from cintervene.prompts.target_spans import (
    TargetSpan,
    answered,
)
from cintervene.utils.json_ready import json_ready
from cintervene.utils.progress import (
    Progress,
    silent,
)
from cintervene.utils.validation import check_whole

__all__ = ["Asked", "RequestMeasurement", "measure_requests"]

EVERYDAY = "everyday"


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one kind, and what the greedy answers to them do.

    Attributes
    ----------
    kind : str
    requests : int
    refused, broken : Paired
        The rest complies.
    """

    kind: str
    requests: int
    refused: Paired
    broken: Paired


@dataclass(frozen=True)
class RequestMeasurement:
    """How often requests are refused, and how far other answers moved.

    Attributes
    ----------
    model : str
    split : str
        The part of the data it was measured on.
    level : float
        Of all intervals.
    tokens : int
        Length of the answers.
    asked : list of Asked
        Harmful requests, those that only sound harmful, and everyday prompts.
    kl : Estimate
        KL(base || changed), nats a token, over the base's answers to everyday prompts.
    kl_prompts, kl_tokens : int
        Answers looked at for it, and tokens in them.
    seconds : dict of str to float
        By phase of this measurement.
    """

    model: str
    split: str
    level: float
    tokens: int
    asked: list[Asked]
    kl: Estimate
    kl_prompts: int
    kl_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """What changed and what did not, as text for a terminal."""
        found = [
            Section(
                f"{one.kind[0].upper()}{one.kind[1:]} ({one.requests})",
                [
                    change_row("refused", one.refused.rate),
                    change_row("broken", one.broken.rate),
                ],
            )
            for one in self.asked
        ]
        drift = Section("Everyday answers", [kl_row(self.kl, self.kl_prompts)])
        return "\n".join(lay_out([*found, drift], self.level))

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        found: dict[str, Any] = json_ready(asdict(self))
        return found


@quick_products()
def measure_requests(
    model: nn.Module,
    tokenizer: Any,
    intervention: Intervention,
    *,
    limit: int = 60,
    tokens: int = 48,
    split: Split = "held_out",
    progress: Progress = silent,
) -> RequestMeasurement:
    """Ask a model harmful and harmless things without and with an intervention.

    Nothing is random. The model is changed for a while and is as before in the end,
    however this ends.

    Parameters
    ----------
    model : nn.Module
        The base.
    tokenizer
    intervention : Intervention
        One that fits the base and is not applied.
    limit : int
        Requests of each kind.
    tokens : int
        Length of the answers.
    split : {"held_out", "tune", "train"}, default "held_out"
        Of the package's requests.
    progress : Progress, optional

    Raises
    ------
    ArgumentError
        `limit` or `tokens` is not positive.
    InterventionError
        The intervention does not fit the model, or is applied already.
    """
    check_whole(1, limit=limit, tokens=tokens)
    # A wrong base must not be noticed only after half of the work.
    with intervention.applied(model):
        pass
    phases = Phases(progress)
    groups = _groups(split, limit)
    prompts = [prompt for group in groups.values() for prompt in group]
    rendered = [render(tokenizer, prompt) for prompt in prompts]

    def answers(phase: str) -> list[list[int]]:
        with phases.phase(phase, len(rendered)) as step, evaluating(model):
            return generate(model, tokenizer, rendered, tokens, progress=step)

    before = answers("answers before")
    everyday = len(groups[EVERYDAY])
    said = answered(rendered[-everyday:], before[-everyday:])
    with phases.phase("drift", len(said)) as step:
        kl = _drift(model, intervention, said)
        step(len(said))
    with intervention.applied(model):
        after = answers("answers after")
    with phases.phase("outcomes", 2) as step:
        found = []
        for replies in (before, after):
            found.append(_outcomes(model, tokenizer, prompts, replies))
            step(1)
    sizes = token_counts(said)
    return RequestMeasurement(
        model=intervention.model,
        split=split,
        level=LEVEL,
        tokens=tokens,
        asked=_compared(groups, *found),
        kl=bootstrap_mean(item_sums(kl, sizes), sizes),
        kl_prompts=len(said),
        kl_tokens=int(sizes.sum()),
        seconds=phases.seconds,
    )


def _groups(split: Split, limit: int) -> dict[str, list[str]]:
    """The first of each kind: in these lists categories take turns."""
    found: dict[str, Sequence[HarmfulPrompt | BenignPrompt]] = {
        "harmful": data.harmful_prompts(split),
        "only sounding harmful": data.borderline_prompts(split),
        EVERYDAY: data.benign_prompts(split),
    }
    return {name: [one.text for one in group[:limit]] for name, group in found.items()}


def _drift(
    model: nn.Module, intervention: Intervention, said: Sequence[TargetSpan]
) -> npt.NDArray[np.float64]:
    """KL(base || changed) at each token of answers."""
    decoder = find_decoder(model)
    stream = LayerStream(
        model,
        [one.ids for one in said],
        min(edit.layer for edit in intervention.edits.values()),
        wanted=[one.positions for one in said],
        decoder=decoder,
    )
    base = stream.final()
    with intervention.applied(model):
        changed = stream.final()
    return divergence(find_unembedding(model, decoder), base, changed)


def _outcomes(
    model: nn.Module, tokenizer: Any, prompts: list[str], replies: list[list[int]]
) -> list[Outcome]:
    """What answers do; the base says whether they are language."""
    texts = [tokenizer.decode(one, skip_special_tokens=True) for one in replies]
    odd = perplexities(model, tokenizer, prompts, texts)
    return outcomes(texts, prompts=prompts, perplexities=odd)


def _compared(
    groups: dict[str, list[str]], before: list[Outcome], after: list[Outcome]
) -> list[Asked]:
    found, start = [], 0
    for kind, group in groups.items():
        part = slice(start, start + len(group))
        start += len(group)
        refused, broken = (
            compare_outcomes(before[part], after[part], outcome)
            for outcome in (Outcome.REFUSED, Outcome.BROKEN)
        )
        found.append(Asked(kind, len(group), refused, broken))
    return found
