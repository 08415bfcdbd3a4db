# SPDX-License-Identifier: Apache-2.0
"""An intervention against the bare forward passes over the same prompts.

Forbids the package's 100 words to SmolLM2-135M-Instruct at one strength: capture, solve
and apply, as `cintervene.defend` does them once all prompts are answered. Against it
the model alone runs over the same token sequences, in batches of the same size: as it
is called, with logits at every position, and with logits at the last position only.

    python benchmarks/bench_intervention.py
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from time import perf_counter

import torch

from cintervene import Intervention, PCRConfig, data, models
from cintervene.methods.pcr.method import calibrate, constrain
from cintervene.methods.pcr.resolve import resolved
from cintervene.models.parts import ModelParts
from cintervene.prompts.answerer import answerer
from cintervene.utils.progress import silent

LAYERS = [28, 29]
BATCH_TOKENS = 2048
STRENGTH = 14.0
TURNS = 2


def bare(model, sequences, logits_to_keep):
    """Seconds of the plain forward passes, right-padded as the capture pads."""
    ordered = sorted(sequences, key=len)
    start = perf_counter()
    with torch.inference_mode():
        at = 0
        while at < len(ordered):
            size = max(1, BATCH_TOKENS // len(ordered[at]))
            batch = ordered[at : at + size]
            length = max(map(len, batch))
            ids = torch.tensor(
                [[*one, *[one[0]] * (length - len(one))] for one in batch]
            )
            model(input_ids=ids, use_cache=False, logits_to_keep=logits_to_keep)
            at += size
    return perf_counter() - start


def intervene(parts, calibration, config):
    """Seconds of capture, solve and apply."""
    seconds = {}
    start = perf_counter()
    layerwise = constrain(parts, calibration, config)
    seconds["capture"] = perf_counter() - start
    start = perf_counter()
    changes = layerwise.solve(STRENGTH)
    seconds["solve"] = perf_counter() - start
    start = perf_counter()
    intervention = Intervention.of(
        parts.model, [(change.target, change.update) for change in changes]
    )
    intervention.apply(parts.model)
    seconds["apply"] = perf_counter() - start
    intervention.revert(parts.model)
    return seconds


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    model, tokenizer = models.load("smollm2")
    words = data.forbidden_words()
    config = PCRConfig(forbid=words, layers=LAYERS)
    parts = ModelParts.find(model)
    config = resolved(config, parts)
    calibration = calibrate(answerer(model, tokenizer), tokenizer, config, silent)
    groups = (calibration.forget, calibration.retain, calibration.near_negatives)
    sequences = [list(one.ids) for group in groups for one in group]
    tokens = sum(map(len, sequences))
    print(f"{len(sequences)} sequences, {tokens} tokens, layers {LAYERS}")
    bare(model, sequences[:50], 0)
    for turn in range(TURNS):
        plain, last = (bare(model, sequences, keep) for keep in (0, 1))
        seconds = intervene(parts, calibration, config)
        whole = sum(seconds.values())
        shown = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(
            f"run {turn}: intervention {whole:.1f} s ({shown}); forward passes "
            f"{plain:.1f} s: {whole / plain:.2f}x; without logits {last:.1f} s: "
            f"{whole / last:.2f}x"
        )


if __name__ == "__main__":
    main()
