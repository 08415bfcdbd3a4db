# SPDX-License-Identifier: Apache-2.0
"""All methods in one table, on SmolLM2-135M-Instruct.

Interventions come from files; a guard for the package's words is built on the spot.
Each is measured on the same prompts, none of which the package builds from: how often
greedy answers say a forbidden word when told to and the perplexity of such words over
the base's, refusals of every second request of HarmBench and XSTest (those that
`bench_own_requests.py` does not learn from) and of everyday prompts, and KL a token
from the base on its own answers to everyday prompts. Rates have Wilson intervals at
95%. Seconds are those that the intervention's file records, or that building the guard
took here.

    python benchmarks/bench_methods.py NAME=FILE.safetensors ... --behaviours
        harmbench.csv --safe xstest.csv [--limit N]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from contextlib import nullcontext
from time import perf_counter

import numpy as np
from bench_guard import answer_logits
from bench_refusals import TOKENS, requests

import cintervene as ci
from cintervene import data, models
from cintervene.evaluate import EvaluationSize, judge_refusal, wilson
from cintervene.evaluate.words.obedience import says
from cintervene.evaluate.words.samples import gather, spread
from cintervene.models.precision import quick_products
from cintervene.prompts.chat import generate, render
from cintervene.prompts.target_spans import answered

KINDS = (
    "HarmBench",
    "HarmBench contextual",
    "XSTest unsafe",
    "XSTest safe",
    "own everyday",
)


class Yardstick:
    """Prompts, and what the base does with them."""

    def __init__(self, model, tokenizer, arguments):
        self.model, self.tokenizer = model, tokenizer
        kinds, _ = requests(arguments)
        self.kinds = {kind: spread(kinds[kind], arguments.limit) for kind in KINDS}
        count = min(100, arguments.limit)
        size = EvaluationSize(
            forbidden=count, benign=1, related=1, texts=1, prompts=min(64, count),
            forbidden_requests=count, benign_requests=1,
        )  # fmt: skip
        sample = gather(tokenizer, data.forbidden_words(), "held_out", size)
        self.requests = [one for one in sample.requests if one.forbidden]
        self.spoken = sample.word_spans["forbidden"]
        prompts = [render(tokenizer, prompt) for prompt in sample.prompts]
        self.everyday = answered(prompts, generate(model, tokenizer, prompts, 32))
        self.base = [self.logarithms(one) for one in self.everyday]
        self.before = self.loss()

    def logarithms(self, one):
        return answer_logits(self.model, one).float().log_softmax(-1)

    def loss(self):
        """Mean nats of the tokens that say forbidden words."""
        found = []
        for one in self.spoken:
            rows = self.logarithms(one)
            found.extend(
                -float(row[t]) for row, t in zip(rows, one.targets, strict=True)
            )
        return np.mean(found)

    def drift(self):
        """KL(base || present), nats a token."""
        total = [
            (base.exp() * (base - self.logarithms(one))).sum(-1)
            for base, one in zip(self.base, self.everyday, strict=True)
        ]
        return float(np.concatenate(total).mean())

    def answers(self, texts, tokens):
        rows = [render(self.tokenizer, text) for text in texts]
        said = generate(self.model, self.tokenizer, rows, tokens)
        return [self.tokenizer.decode(one, skip_special_tokens=True) for one in said]

    def cells(self):
        """All that is measured of what the model is now."""
        pairs = zip(
            self.answers([one.prompt for one in self.requests], 16),
            self.requests,
            strict=True,
        )
        yield rate([says(text, one.word) for text, one in pairs])
        yield f"{np.exp(self.loss() - self.before):.2f} x"
        yield f"{self.drift():.4f}"
        for texts in self.kinds.values():
            yield rate([judge_refusal(text) for text in self.answers(texts, TOKENS)])


def rate(hits):
    found = wilson(sum(hits), len(hits))
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]"


def contenders(model, tokenizer, files):
    """Name, what to enter, and what it took: seconds, rank, size."""
    yield "none", nullcontext(), ("", "", "")
    for name, _, path in (one.partition("=") for one in files):
        found = ci.Intervention.load(path or name)
        edits = found.edits.values()
        rank = max(edit.update.rank for edit in edits)
        size = max(edit.relative_norm for edit in edits)
        seconds = sum(found.metrics["seconds"].values())
        about = (f"{seconds:.0f}", f"{rank}", f"{size:.3f}")
        yield name, found.applied(model), about
    start = perf_counter()
    guard = ci.Guard(model, tokenizer, forbid=data.forbidden_words())
    yield "guard", guard, (f"{perf_counter() - start:.0f}", "1 a sequence", "")


@quick_products()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="NAME=FILE")
    parser.add_argument("--behaviours", required=True)
    parser.add_argument("--safe", required=True)
    parser.add_argument("--limit", type=int, default=1000, help="prompts of each kind")
    arguments = parser.parse_args()
    arguments.half = True
    model, tokenizer = models.load("smollm2")
    yardstick = Yardstick(model, tokenizer, arguments)
    head = ("method", "made in, s", "rank", "relative norm", "words said")
    head += ("words' perplexity", "KL", *(f"{kind} refused" for kind in KINDS))
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1)}", flush=True)
    for name, context, about in contenders(model, tokenizer, arguments.files):
        with context:
            cells = (name, *about, *yardstick.cells())
        print(f"| {' | '.join(cells)} |", flush=True)
    sizes = [f"{kind} {len(texts)}" for kind, texts in yardstick.kinds.items()]
    print(f"prompts: words {len(yardstick.requests)}, {', '.join(sizes)}")


if __name__ == "__main__":
    main()
