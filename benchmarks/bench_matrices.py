# SPDX-License-Identifier: Apache-2.0
"""Which matrix to change: down projections against attention's output projections.

Words are forbidden to SmolLM2-135M-Instruct (PCR) in the same layers, from the same
answers, at a sweep of strengths, once by either matrix. Both are measured on the
tuning split, on which nothing is chosen here: how many times its value the perplexity
of forbidden and of benign words becomes, and KL on benign answers. In the end the
effects are compared at equal KL, between the points nearest to it.

    python benchmarks/bench_matrices.py [LAYERS ...]

A group of layers is given as 28,29. With --by-word instead: the package's 100 words by
the down projections, one strength for all (as much as the default took before) and
strengths by word, on the held-out split.

    python benchmarks/bench_matrices.py --by-word
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import math
import sys
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np
import torch

from cintervene import CalibrationSize, PCRConfig, data, evaluate, models
from cintervene.activations.layer_stream import Asked, LayerStream, finals
from cintervene.activations.scoring import divergence, token_nll
from cintervene.evaluate.statistics.intervals import bootstrap_mean
from cintervene.evaluate.words.samples import gather
from cintervene.intervention.intervention import Intervention
from cintervene.methods.pcr.method import calibrate, constrain
from cintervene.methods.pcr.resolve import checked_texts, resolved, tuned_by_word
from cintervene.methods.pcr.strength import Tuning, WordLimits
from cintervene.methods.pcr.word_strengths import best_by_word, even_out
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.prompts.answerer import answerer
from cintervene.prompts.chat import generate, render
from cintervene.prompts.target_spans import answered
from cintervene.prompts.word_sentences import said_at, token_forms
from cintervene.utils.clock import Clock
from cintervene.utils.progress import silent

SIZE = CalibrationSize(
    contrast_words=20, text_words=100, prompts=60, texts=20, tune_prompts=24
)
MATRICES = ("down_proj", "o_proj")
STRENGTHS = (5, 10, 15, 20, 28)
EQUAL = (0.005, 0.01, 0.02, 0.04)
HEADER = (
    "| strength | first | later | tenth percentile by word / least | words below 5 "
    "| benign | related | KL | where no forbidden word is said |\n| --- |"
    + " ---: |"
    * 8
)


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


class HeldOut:
    """Held-out answers and the base's own, carried to the first changed layer."""

    def __init__(self, parts, tokenizer, words, first):
        self.parts = parts
        size = evaluate.EvaluationSize()
        sample = gather(tokenizer, words, "held_out", size)
        prompts = [render(tokenizer, prompt) for prompt in sample.prompts]
        answers = generate(parts.model, tokenizer, prompts, size.answer_tokens)
        self.spans = dict(sample.word_spans)
        self.own = answered(prompts, answers)
        asked = [Asked(spans) for spans in (*self.spans.values(), self.own)]
        self.streams = LayerStream.several(parts.decoder, asked, first)
        forms = token_forms(tokenizer, *words)
        self.said = [said_at(forms, span) for span in self.own]
        *states, self.state = finals(self.streams)
        self.before = self.nats(states)

    def nats(self, states):
        """Sum over the tokens of each word, for each kind of word."""
        found = {}
        for (kind, spans), state in zip(self.spans.items(), states, strict=True):
            tokens = torch.tensor([token for span in spans for token in span.targets])
            nll = token_nll(self.parts.unembedding, state, tokens)
            found[kind] = np.add.reduceat(nll, starts(spans))
        return found

    def row(self, name, updates):
        """A line of the table."""
        trial = Intervention.of(self.parts.model, updates, reversible=False)
        with trial.applied(self.parts.model):
            *states, state = finals(self.streams)
        after = self.nats(states)
        risen = {kind: after[kind] - nats for kind, nats in self.before.items()}
        kl = divergence(self.parts.unembedding, self.state, state)
        elsewhere = np.where(np.concatenate(self.said), 0.0, kl)
        forbidden = self.spans["forbidden"]
        later = np.array([span.later for span in forbidden])
        sizes = lengths(forbidden)
        words = np.unique([span.word for span in forbidden], return_inverse=True)[1]
        by_word = np.bincount(words, risen["forbidden"]) / np.bincount(words, sizes)
        ratios = np.exp(np.sort(by_word))
        tenth = np.quantile(ratios, 0.1, method="lower")
        resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        tenths = np.quantile(resampled, 0.1, axis=1, method="lower")
        low, high = np.quantile(tenths, [0.025, 0.975])
        cells = [
            name,
            ratio(risen["forbidden"][~later], sizes[~later]),
            ratio(risen["forbidden"][later], sizes[later]),
            f"{tenth:.2f} [{low:.2f}, {high:.2f}] / {ratios[0]:.2f}",
            f"{np.sum(ratios < 5.0)}",
            *(ratio(risen[kind], lengths(self.spans[kind]))
              for kind in ("benign", "related")),
            *(mean(np.add.reduceat(one, starts(self.own)), lengths(self.own))
              for one in (kl, elsewhere)),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


def lengths(spans):
    return np.array([len(span.targets) for span in spans])


def starts(spans):
    return np.cumsum(lengths(spans)) - lengths(spans)


def ratio(risen, sizes):
    """Perplexity after over before, with its interval."""
    found = bootstrap_mean(risen, sizes).map(math.exp)
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def mean(sums, sizes):
    found = bootstrap_mean(sums, sizes)
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def by_word(model, tokenizer, parts):
    """One strength for all words, and their own, on the held-out split."""
    config = PCRConfig(forbid=data.forbidden_words(), hinge="off")
    config = tuned_by_word(resolved(checked_texts(tokenizer, config), parts))
    start = process_time()
    calibration = calibrate(answerer(model, tokenizer), tokenizer, config, silent)
    layerwise = constrain(parts, calibration, config)
    first = layerwise.targets[0].layer
    limits = WordLimits(config.min_effect, config.max_kl, config.max_benign_loss)
    tuning = Tuning(parts, calibration, first)
    words = list(config.forbid)
    tried = even_out(layerwise, tuning, words, limits, Clock(), silent)
    print(f"{process_time() - start:.0f} CPU-s", file=sys.stderr)
    measured = HeldOut(parts, tokenizer, words, first)
    print(HEADER)
    measured.row("16 for all", tried[0].updates())
    measured.row("by word", best_by_word(tried, limits).updates())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", default=["28,29"], metavar="LAYERS")
    parser.add_argument("--by-word", action="store_true")
    arguments = parser.parse_args()
    groups = [[int(i) for i in one.split(",")] for one in arguments.layers]
    model, tokenizer = models.load("smollm2")
    parts = ModelParts.find(model)
    if arguments.by_word:
        with quick_products():
            by_word(model, tokenizer, parts)
        return
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
