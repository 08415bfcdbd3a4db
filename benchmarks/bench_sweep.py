# SPDX-License-Identifier: Apache-2.0
"""What settings of a sweep save by what they have in common.

The same settings in one call of `ci.sweep`, and each by itself with `ci.defend` and
`ci.evaluate.measure`: tokens that pass a decoder layer, padding included, and
CPU seconds. The model is a small random one with SmolLM2's tokenizer, so
that tokens are those of the package's own words and texts; they are exact, and the same
on any machine. The changes have to be the same, bit for bit.

    python benchmarks/bench_sweep.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from itertools import product

import torch
from small_models import counted, small_model

import cintervene as ci
from cintervene import data, models
from cintervene.evaluate import EvaluationSize, measure

WORDS = 12
METHODS = {"pcr:hinge=on": "on", "pcr:hinge=off": "off"}
LAYERS = ([4, 5], [5])
STRENGTHS = (4, 8, 16)
SIZE = EvaluationSize.named("small")


def in_one(model, tokenizer, words, method):
    with tempfile.TemporaryDirectory() as place:
        found = ci.sweep(
            model, tokenizer, place, forbid=words, method=[method], layers=LAYERS,
            strength=STRENGTHS, budget="small", size=SIZE,
        )  # fmt: skip
    return [row.digest for row in found.rows]


def alone(model, tokenizer, words, method):
    digests = []
    for layers, strength in product(LAYERS, STRENGTHS):
        change = ci.defend(
            model, tokenizer, forbid=words, hinge=METHODS[method], layers=layers,
            strength=strength, calibration="small",
        )  # fmt: skip
        measure(model, tokenizer, change, split="tune", size=SIZE)
        digests.append(change.digest)
    return digests


def main():
    torch.set_num_threads(1)
    _, tokenizer = models.load("smollm2")
    model = small_model(tokenizer)
    words, counts = data.forbidden_words()[:WORDS], counted(model)
    print("| settings | made | tokens x layers | CPU s |\n| --- | --- | ---: | ---: |")
    for method in METHODS:
        digests = []
        for name, make in (("in one", in_one), ("each alone", alone)):
            counts[0], start = 0, time.process_time()
            digests.append(make(model, tokenizer, words, method))
            spent = time.process_time() - start
            many = len(LAYERS) * len(STRENGTHS)
            print(f"| {many} of {method} | {name} | {counts[0]:,} | {spent:.0f} |")
        assert digests[0] == digests[1]


if __name__ == "__main__":
    main()
