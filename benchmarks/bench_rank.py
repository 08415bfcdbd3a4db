# SPDX-License-Identifier: Apache-2.0
"""What lower ranks and fewer bits leave of a change, on SmolLM2 and held-out words.

python benchmarks/bench_rank.py                             # solves the change first
python benchmarks/bench_rank.py demo/intervention.safetensors
python benchmarks/bench_rank.py demo/intervention.safetensors --bits 4 8
python benchmarks/bench_rank.py --solve                     # also as defend --max-rank
python benchmarks/bench_rank.py --solve --budget small      # a first look

A row for the whole change and one for each rank of an adapter: the share of the norm
that is lost, how many times as large the words' perplexity is, by word too, what is
said when asked, and what else has moved. With `--bits` the same where weights are
rounded to so many, eight with a scale a row and fewer with one for each 64 inputs:
merged first and rounded then, and the whole change also as an adapter beside rounded
weights. The base of these rows is rounded in the same way.
"""

import argparse
from contextlib import nullcontext
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import torch

import cintervene as ci
from cintervene import data, evaluate, export, models
from cintervene.evaluate.robustness.quantised import quantised, round_to_bits
from cintervene.prompts.evaluation_size import EvaluationSize

RANKS = (16, 32, 64)
GROUP = 64
# Of what no column shows as little as there may be.
UNSHOWN = {"elicitations": 1, "benign_requests": 1, "running_texts": 1, "related": 1}
COLUMNS = (
    "change", "norm lost", "first", "later", "tenth percentile / least",
    "said when asked", "KL / elsewhere", "benign", "prose",
)  # fmt: skip


def interval(estimate):
    return f"{estimate.value:.3g} x [{estimate.low:.3g}, {estimate.high:.3g}]"


def row(model, tokenizer, name, change, lost, size):
    """Effect and price of a change, or of what an adapter holds."""
    found = evaluate.measure(model, tokenizer, change, size=size)
    effect = found.forbidden.all_tokens
    ratios = np.sort([one.after / one.before for one in found.forbidden.by_word])
    said = found.obedience.rate
    drift = found.drift
    cells = [
        name,
        "" if lost is None else f"{lost:.1%}",
        interval(effect.starting.effect),
        interval(effect.later.effect),
        f"{np.quantile(ratios, 0.1):.3g} x / {ratios[0]:.3g} x",
        f"{said.before.value:.0%} to {said.after.value:.0%}",
        f"{drift.kl.value:.4f} / {drift.kl_elsewhere.value:.4f}",
        interval(found.benign.all_tokens.together.effect),
        interval(drift.texts.effect),
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def cut(change, rank):
    """What an adapter of a rank holds, and the share of the norm that it lost."""
    with TemporaryDirectory() as place:
        made = export.lora(
            change, f"{place}/adapter", max_rank=rank, beyond_limits=True
        )
        stored = export.read_lora(change, f"{place}/adapter")
    norms = np.array([one.norm for one in change.updates.values()])
    errors = np.array([made.errors[name] for name in change.updates])
    lost = np.linalg.norm(errors * norms) / np.linalg.norm(norms)
    return export.AdapterIntervention(change, stored), float(lost)


def rounding(bits):
    """Bits and the inputs that share a scale."""
    return bits, None if bits == 8 else GROUP


def merged(model, change, bits):
    """The difference that is left where base and changed weights are rounded.

    `change` is one to be applied, or what an adapter holds; the model has its own
    weights. What is returned is for the rounded model.
    """
    left = {}
    for name, update in change.updates.items():
        weight = model.get_parameter(name).detach()
        changed = torch.from_numpy(update.apply(weight.float().numpy()))
        before, after = (
            round_to_bits(one, *rounding(bits)).to(weight.dtype).double()
            for one in (weight, changed.to(weight.dtype))
        )
        difference = (after - before).numpy()
        left[name] = ci.LowRankUpdate(difference, np.eye(weight.shape[1]))
    return export.AdapterIntervention(change, left)


def choice(change):
    """Strength that was chosen, and whether it is within the limits."""
    metrics = change.metrics
    return (
        f"strength {metrics['strength']:.3g}, within limits: {metrics['within_limits']}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("intervention", nargs="?")
    parser.add_argument("--budget", default="default")
    parser.add_argument("--ranks", nargs="*", type=int, default=RANKS)
    parser.add_argument("--bits", nargs="*", type=int, default=())
    parser.add_argument("--size", nargs="*", metavar="NAME=N", default=())
    parser.add_argument("--solve", action="store_true")
    arguments = parser.parse_args()
    model, tokenizer = models.load("smollm2")
    size = EvaluationSize.named(arguments.budget)
    asked = dict(one.split("=") for one in arguments.size)
    size = replace(size, **UNSHOWN, **{name: int(n) for name, n in asked.items()})

    def solve(rank):
        change = ci.defend(
            model, tokenizer, forbid=data.forbidden_words(), max_rank=rank,
            calibration=arguments.budget,
        )  # fmt: skip
        print(f"rank {rank}: {choice(change)}", flush=True)
        return change

    def show(name, change, lost=None, bits=0):
        rounded = quantised(model, *rounding(bits)) if bits else nullcontext()
        with rounded:
            row(model, tokenizer, name, change, lost, size)

    file = arguments.intervention
    change = ci.Intervention.load(file) if file else solve(256)
    rank = max(one.rank for one in change.updates.values())
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    show(f"whole, rank {rank}", change)
    whole = export.AdapterIntervention(change)
    held = [(f"rank {rank}", whole, None)]
    for rank in arguments.ranks:
        held.append((f"rank {rank}", *cut(change, rank)))
        show(f"exported at {held[-1][0]}", *held[-1][1:])
    for bits in arguments.bits:
        for name, adapter, lost in held:
            left = merged(model, adapter, bits)
            show(f"{bits} bits, {name}, merged", left, lost, bits)
        show(f"{bits} bits, {held[0][0]}, adapter", whole, None, bits)
    for rank in RANKS if arguments.solve else ():
        show(f"solved at rank {rank}", solve(rank))


if __name__ == "__main__":
    main()
