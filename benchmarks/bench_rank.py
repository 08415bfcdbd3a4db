# SPDX-License-Identifier: Apache-2.0
"""What a lower rank of an adapter costs, on SmolLM2 and held-out words.

python benchmarks/bench_rank.py                             # solves the change first
python benchmarks/bench_rank.py demo/intervention.safetensors
python benchmarks/bench_rank.py --solve                     # also as defend --max-rank

A line a rank: the share of the change's norm that is lost, forbidden requests that are
obeyed, how many times as large the words' perplexity is, and the KL divergence of
everyday answers, each with its ratio to that of the whole change.
"""

import argparse
from tempfile import TemporaryDirectory

import cintervene as ci
from cintervene import data, evaluate, export, models
from cintervene.prompts.evaluation_size import EvaluationSize

RANKS = (16, 32, 64)


def figures(model, tokenizer, change, budget):
    """Obedience, perplexity and drift of a change, or of what an adapter holds."""
    size = EvaluationSize.named(budget)
    found = evaluate.measure(model, tokenizer, change, size=size)
    return {
        "obeyed": found.obedience.rate.after.value,
        "perplexity": found.forbidden.all_tokens.together.effect.value,
        "KL": found.drift.kl.value,
    }


def cut(change, rank):
    """What an adapter of a rank holds, and the share of the norm that it lost."""
    with TemporaryDirectory() as place:
        made = export.lora(
            change, f"{place}/adapter", max_rank=rank, beyond_limits=True
        )
        stored = export.read_lora(change, f"{place}/adapter")
    held = export.AdapterIntervention(change, stored)
    norm = sum(one.norm**2 for one in change.updates.values())
    lost = sum((made.errors[n] * u.norm) ** 2 for n, u in change.updates.items())
    return held, (lost / norm) ** 0.5


def show(name, lost, found, whole):
    parts = [f"{name:22} lost {lost:6.1%}"]
    for key, value in found.items():
        ratio = value / whole[key] if whole[key] else float("nan")
        parts.append(f"{key} {value:9.4f} ({ratio:.2f} x)")
    print("  ".join(parts), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("intervention", nargs="?")
    parser.add_argument("--budget", default="default")
    parser.add_argument("--solve", action="store_true")
    arguments = parser.parse_args()
    model, tokenizer = models.load("smollm2")

    def solve(rank):
        return ci.defend(
            model, tokenizer, forbid=data.forbidden_words(), max_rank=rank,
            calibration=arguments.budget,
        )  # fmt: skip

    file = arguments.intervention
    change = ci.Intervention.load(file) if file else solve(256)
    rank = max(one.rank for one in change.updates.values())
    whole = figures(model, tokenizer, change, arguments.budget)
    show(f"whole, rank {rank}", 0.0, whole, whole)
    for rank in RANKS:
        held, lost = cut(change, rank)
        found = figures(model, tokenizer, held, arguments.budget)
        show(f"exported at rank {rank}", lost, found, whole)
        if arguments.solve:
            found = figures(model, tokenizer, solve(rank), arguments.budget)
            show(f"solved at rank {rank}", 0.0, found, whole)


if __name__ == "__main__":
    main()
