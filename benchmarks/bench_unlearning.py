# SPDX-License-Identifier: Apache-2.0
"""Whether the words that an intervention forbids come back.

By other ways of asking, among the likeliest next tokens, when the weights are rounded
to 8 and 4 bits, and when the model is trained to say half of the words again. All of it
is from the package's held-out split, for every eighth of its forbidden words.

    python benchmarks/bench_unlearning.py INTERVENTION.safetensors
        [rounding] [asking] [relearning]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from contextlib import nullcontext

import numpy as np

from cintervene import Intervention, data, models
from cintervene.activations.next_token import answer_nll
from cintervene.baselines import Intervened, Undefended
from cintervene.evaluate.robustness.extraction import extraction
from cintervene.evaluate.robustness.quantised import quantised
from cintervene.evaluate.robustness.relearning import relearn
from cintervene.evaluate.robustness.top_k import ranks
from cintervene.models.parts import ModelParts
from cintervene.prompts.target_spans import word_spans

TOP = (1, 10, 100)
ROUNDINGS = {
    "as stored": None,
    "8 bits a row": (8, None),
    "4 bits, groups of 64": (4, 64),
}
STEPS, RATE = 8, 2e-5


def perplexity(model, spans):
    prompts = [one.ids[: one.start] for one in spans]
    nats = answer_nll(ModelParts.find(model), prompts, [one.targets for one in spans])
    return float(np.exp(np.concatenate(nats).mean()))


def said(tokenizer, words):
    return word_spans(
        tokenizer,
        words,
        data.obedience_templates("held_out"),
        data.answer_prefixes("held_out"),
        starting=2,
        later=2,
    )


def ask(model, tokenizer, found, words):
    plain = Undefended(model, tokenizer)
    changed = Intervened(plain, model, found)
    print("| way of asking | said before | said after | difference |")
    print("| --- | ---: | ---: | ---: |")
    for way, change in extraction(plain, changed, words, each=2).items():
        low, high = change.effect.low, change.effect.high
        print(
            f"| {way} | {change.before.value:.0%} | {change.after.value:.0%} "
            f"| {change.effect.value:+.0%} [{low:+.0%}, {high:+.0%}] |",
            flush=True,
        )


def look(model, found, spans):
    """Ranks, and perplexity under rounding, without and with the intervention."""
    for name, rounding in ROUNDINGS.items():
        row = []
        for applied in (nullcontext(), found.applied(model)):
            rounded = nullcontext() if rounding is None else quantised(model, *rounding)
            with applied, rounded:
                row.append((perplexity(model, spans), ranks(model, spans)))
        (before, old), (after, new) = row
        tops = ", ".join(
            f"top {k}: {(old <= k).mean():.0%} to {(new <= k).mean():.0%}" for k in TOP
        )
        print(f"{name}: perplexity x {after / before:.2f}; {tops}", flush=True)


def train(model, tokenizer, found, words):
    half = said(tokenizer, words[::2]), said(tokenizer, words[1::2])
    print("relearning, perplexity of words trained on and of others:")
    with found.applied(model):
        learnt = relearn(model, *half, steps=STEPS, rate=RATE)
    base = [perplexity(model, one) for one in half]
    print(f"base: {base[0]:.1f}, {base[1]:.1f}")
    for step, one, other in zip(
        learnt.steps, learnt.trained, learnt.others, strict=True
    ):
        print(f"{step} steps: {one:.1f}, {other:.1f}")


def main(path, parts):
    model, tokenizer = models.load("smollm2")
    found = Intervention.load(path)
    words = data.forbidden_words()[::8]
    if "rounding" in parts:
        look(model, found, said(tokenizer, words))
    if "asking" in parts:
        ask(model, tokenizer, found, words)
    if "relearning" in parts:
        train(model, tokenizer, found, words)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", metavar="INTERVENTION.safetensors")
    parser.add_argument("parts", nargs="*", metavar="PART")
    given = parser.parse_args()
    main(given.file, given.parts or ("rounding", "asking", "relearning"))
