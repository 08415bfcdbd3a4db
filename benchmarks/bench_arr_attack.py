# SPDX-License-Identifier: Apache-2.0
"""ARR with and without an inner attack, on SmolLM2-135M-Instruct, small budgets.

Both learn to leave the model's own answers to the same harmful requests of the package;
one also those that RelaxedPGD brings back under the change as it is. For held-out
requests: nats a token of the base model's own answer, asked directly and behind the
words that RelaxedPGD finds against the very weights, and KL a token on everyday
answers. Means with bootstrap intervals at 95%.

    python benchmarks/bench_arr_attack.py [REQUESTS [STEPS [HELD_OUT]]]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from contextlib import nullcontext
from dataclasses import replace

import torch

import cintervene as ci
from cintervene import data, models
from cintervene.attacks import RelaxedPGD
from cintervene.evaluate import measure_requests
from cintervene.evaluate.statistics.intervals import bootstrap_mean
from cintervene.prompts.chat import generate, render

LAYERS = [10, 12, 14, 16, 18]
# Of the attack, while learning and when it is measured.
INNER, OUTER = 6, 24
TOKENS = 24


def nats(model, prompt, answer):
    """Negative log probability a token of an answer."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0]
    table = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
    return -float(table[range(len(answer)), answer].mean())


def main(requests, steps, held_out):
    model, tokenizer = models.load("smollm2")
    harmful = [one.text for one in data.harmful_prompts("train")[:requests]]
    asked = [one.text for one in data.harmful_prompts("held_out")[:held_out]]
    own = generate(model, tokenizer, [render(tokenizer, t) for t in asked], TOKENS)
    plain = ci.ARRConfig(
        harmful=harmful, layers=LAYERS, steps=steps, parts=4, answers=48,
        borderline=64,
    )  # fmt: skip
    attack = RelaxedPGD(model, tokenizer, steps=INNER)
    search = RelaxedPGD(model, tokenizer, steps=OUTER)
    states = {"base": None}
    attacked = replace(plain, attack=attack, attack_every=2, attack_requests=2)
    for name, config in (("arr", plain), ("arr, attacked", attacked)):
        found = ci.defend(model, tokenizer, config)
        chosen = next(p for p in found.metrics["sweep"] if p["chosen"])
        seconds = sum(found.metrics["seconds"].values())
        print(f"{name}: {seconds:.0f} s, strength {chosen['strength']}")
        states[name] = found
    for name, change in states.items():
        with nullcontext() if change is None else change.applied(model):
            rows = {"direct": [], "attacked": []}
            for text, answer in zip(asked, own, strict=True):
                found = search.suffixed(text, answer, 0)
                for way, prompt in (("direct", text), ("attacked", found)):
                    rows[way].append(nats(model, render(tokenizer, prompt), answer))
        kl = "" if change is None else f"{_kl(model, tokenizer, change):.4f}"
        means = (bootstrap_mean(row) for row in rows.values())
        cells = [f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]" for one in means]
        print(f"| {name} | {' | '.join(cells)} | {kl} |", flush=True)


def _kl(model, tokenizer, change):
    return measure_requests(model, tokenizer, change, limit=24, tokens=TOKENS).kl.value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requests", nargs="?", type=int, default=32)
    parser.add_argument("steps", nargs="?", type=int, default=16)
    parser.add_argument("held_out", nargs="?", type=int, default=12)
    main(**vars(parser.parse_args()))
