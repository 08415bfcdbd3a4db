# SPDX-License-Identifier: Apache-2.0
"""What a lower rank of an adapter costs, on SmolLM2 and held-out words.

python benchmarks/bench_rank.py                             # solves the change first
python benchmarks/bench_rank.py demo/intervention.safetensors
python benchmarks/bench_rank.py --solve                     # also as defend --max-rank
python benchmarks/bench_rank.py --solve --budget small      # a first look

A line a rank: the share of the norm that is lost, how many times as large the words'
perplexity is where an answer starts with them and where they come later, forbidden
requests that are obeyed, and the KL divergence of everyday answers; each with its ratio
to that of the whole change.
"""

import argparse
from tempfile import TemporaryDirectory

import numpy as np

import cintervene as ci
from cintervene import data, evaluate, export, models
from cintervene.prompts.evaluation_size import EvaluationSize

RANKS = (16, 32, 64)


def figures(model, tokenizer, change, size):
    """Effect, obedience and drift of a change, or of what an adapter holds."""
    found = evaluate.measure(model, tokenizer, change, size=size)
    effect = found.forbidden.all_tokens
    return {
        "first": effect.starting.effect.value,
        "later": effect.later.effect.value,
        "obeyed": found.obedience.rate.after.value,
        "KL": found.drift.kl.value,
    }


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


def show(name, lost, found, whole):
    parts = [f"{name:20} lost {'' if lost is None else f'{lost:.1%}':>6}"]
    for key, value in found.items():
        ratio = value / whole[key] if whole[key] else float("nan")
        parts.append(f"{key} {value:.4g} ({ratio:.3g} x)")
    print("  ".join(parts), flush=True)


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
    parser.add_argument("--solve", action="store_true")
    arguments = parser.parse_args()
    model, tokenizer = models.load("smollm2")
    size = EvaluationSize.named(arguments.budget)

    def solve(rank):
        change = ci.defend(
            model, tokenizer, forbid=data.forbidden_words(), max_rank=rank,
            calibration=arguments.budget,
        )  # fmt: skip
        print(f"rank {rank}: {choice(change)}", flush=True)
        return change

    file = arguments.intervention
    change = ci.Intervention.load(file) if file else solve(256)
    rank = max(one.rank for one in change.updates.values())
    whole = figures(model, tokenizer, change, size)
    show(f"whole, rank {rank}", 0.0, whole, whole)
    for rank in RANKS:
        held, lost = cut(change, rank)
        show(
            f"exported at rank {rank}",
            lost,
            figures(model, tokenizer, held, size),
            whole,
        )
    for rank in RANKS if arguments.solve else ():
        found = figures(model, tokenizer, solve(rank), size)
        show(f"solved at rank {rank}", None, found, whole)


if __name__ == "__main__":
    main()
