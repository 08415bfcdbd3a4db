# SPDX-License-Identifier: Apache-2.0
"""Which matrix to change: down projections against attention's output projections.

Words are forbidden to SmolLM2-135M-Instruct (PCR) in the same layers, from the same
answers, at a sweep of strengths, once by either matrix. Both are measured on the
tuning split, on which nothing is chosen here: how many times its value the perplexity
of forbidden and of benign words becomes, and KL on benign answers. In the end the
effects are compared at equal KL, between the points nearest to it.

    python benchmarks/bench_matrices.py [LAYERS ...]

A group of layers is given as 28,29.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from dataclasses import replace
from time import perf_counter

import numpy as np

from cintervene import CalibrationSize, PCRConfig, data, models
from cintervene.methods.pcr.method import calibrate, constrain
from cintervene.methods.pcr.resolve import resolved
from cintervene.methods.pcr.strength import Tuning
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.prompts.answerer import answerer
from cintervene.utils.progress import silent

SIZE = CalibrationSize(
    contrast_words=20, text_words=100, prompts=60, texts=20, tune_prompts=24
)
MATRICES = ("down_proj", "o_proj")
STRENGTHS = (5, 10, 15, 20, 28)
EQUAL = (0.005, 0.01, 0.02, 0.04)


def sweep(parts, calibration, config):
    """Points of growing strength, printed as they are found."""
    start = perf_counter()
    layerwise = constrain(parts, calibration, config)
    tuning = Tuning(parts, calibration, layerwise.targets[0].layer)
    points = []
    for strength in STRENGTHS:
        changes = layerwise.solve(strength)
        point = tuning.measure(changes, strength).point
        size = max(change.summary()["relative_norm"] for change in changes)
        print(
            f"| {config.matrix} | {strength} | {point.forbidden_ratio:.2f} x "
            f"| {point.benign_ratio:.2f} x | {point.kl:.4f} | {size:.3f} |",
            flush=True,
        )
        points.append(point)
    print(f"{config.matrix}: {perf_counter() - start:.0f} s", file=sys.stderr)
    return points


def effect_at(points, kl):
    """The forbidden words' ratio where the drift is `kl`; nan outside the sweep."""
    drift = [0.0, *(point.kl for point in points)]
    effect = [0.0, *(np.log(point.forbidden_ratio) for point in points)]
    return float(np.exp(np.interp(kl, drift, effect, right=np.nan)))


def compare(parts, calibration, config):
    print("| matrix | strength | forbidden | benign | KL | largest relative norm |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    found = {
        matrix: sweep(parts, calibration, replace(config, matrix=matrix))
        for matrix in MATRICES
    }
    for kl in EQUAL:
        shown = ", ".join(f"{m} {effect_at(p, kl):.2f} x" for m, p in found.items())
        print(f"at KL {kl}: {shown}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", default=["28,29"], metavar="LAYERS")
    groups = [[int(i) for i in one.split(",")] for one in parser.parse_args().layers]
    model, tokenizer = models.load("smollm2")
    parts = ModelParts.find(model)
    words = data.forbidden_words()[::5]
    with quick_products():
        config = PCRConfig(forbid=words, calibration=SIZE)
        calibration = calibrate(answerer(model, tokenizer), tokenizer, config, silent)
        for layers in groups:
            print(f"layers {layers}, {len(words)} words")
            config = resolved(replace(config, layers=layers), parts)
            compare(parts, calibration, config)


if __name__ == "__main__":
    main()
