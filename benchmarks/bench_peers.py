# SPDX-License-Identifier: Apache-2.0
"""RMU and direction addition beside our interventions, on SmolLM2-135M-Instruct.

Effect against drift, each method at a sweep of its own strengths: for forbidden words
RMU (from answers that say them) and PCR, for refusals RMU (from harmful requests),
rank-one addition of the refusal direction, TSR and gates. All is made from the
package's training split and measured on its held-out one: perplexity of the forbidden
words against the base's, refusals of harmful and of borderline requests, KL of the
base's answers to everyday prompts. Interventions are scaled for their sweep but for
gates, of which each file is a point.

    python benchmarks/bench_peers.py [words] [refusals] [--pcr FILE] [--tsr FILE]
        [--gate FILE,FILE] [--layers 7,16] [--out peers.json]

`--out` collects the points, and is what `cintervene evaluate --peers` draws. With it
the same command goes on after an interruption.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
from peers import added_direction, rmu

from cintervene import Intervention, data, models
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.next_token import answer_nll
from cintervene.activations.scoring import divergence
from cintervene.baselines import Generation, Undefended
from cintervene.evaluate.requests.fluency import perplexities
from cintervene.evaluate.requests.outcomes import Outcome, outcomes
from cintervene.models.parts import ModelParts
from cintervene.models.trace import evaluating
from cintervene.prompts.chat import generate, render
from cintervene.prompts.target_spans import word_spans
from cintervene.study.report.peers import Peer, read_peers

STEERING, WEIGHTS, RATES = (1.5, 0.5), (10.0, 100.0), (1e-3, 3e-4)
STEPS = [4, 8, 16, 32]
ADDED = (0.5, 1.0, 1.5, 2.0)
SCALES = (0.4, 0.7, 1.0, 1.3)
REQUESTS, EVERYDAY, ANSWER = 30, 24, 32


def texts(prompts, number=None):
    return [prompt.text for prompt in prompts][:number]


def said(tokenizer, split, each):
    words = data.forbidden_words()
    templates, prefixes = data.obedience_templates(split), data.answer_prefixes(split)
    return word_spans(tokenizer, words, templates, prefixes, starting=each, later=each)


class Comparison:
    """What the base does, and points of changed models against it."""

    def __init__(self, model, tokenizer, effect, out):
        self.model, self.tokenizer, self.out = model, tokenizer, out
        self.measure = getattr(self, effect)
        self.harmful = texts(data.harmful_prompts("held_out"), REQUESTS)
        self.border = texts(data.borderline_prompts("held_out"), REQUESTS)
        self.spans = said(tokenizer, "held_out", 1)[::2]
        everyday = texts(data.benign_prompts("held_out"), EVERYDAY)
        prompts = [render(tokenizer, prompt) for prompt in everyday]
        with evaluating(model):
            answers = generate(model, tokenizer, prompts, 24)
        pairs = list(zip(prompts, answers, strict=True))
        self.sequences = [[*prompt, *answer] for prompt, answer in pairs]
        self.wanted = [range(len(p) - 1, len(p) + len(a) - 1) for p, a in pairs]
        self.base = self.hidden(model)
        self.before = self.perplexity(model) if effect == "words" else None
        self.points = [] if out is None or not out.exists() else read_peers(out)

    def hidden(self, model):
        decoder = models.find_decoder(model)
        last = decoder.n_layers - 1
        return LayerStream(decoder, self.sequences, last, wanted=self.wanted).final()

    def perplexity(self, model):
        prompts = [one.ids[: one.start] for one in self.spans]
        nats = answer_nll(
            ModelParts.find(model), prompts, [one.targets for one in self.spans]
        )
        return float(np.exp(np.concatenate(nats).mean()))

    def point(self, name, setting, model):
        """Measure, print and keep one point."""
        unembedding = models.find_unembedding(self.model)
        moved = divergence(unembedding, self.base, self.hidden(model).to(self.base))
        effects, shown = self.measure(model)
        cells = (name, setting, f"{moved.mean():.4f}", *shown)
        print(f"| {' | '.join(cells)} |", flush=True)
        self.points.append(Peer(name, setting, float(moved.mean()), **effects))
        if self.out is not None:
            records = [asdict(one) for one in self.points]
            self.out.write_text(json.dumps(records, indent=1))

    def knows(self, name, setting):
        """Whether there is such a point, of this effect, from a run before."""
        return any((p.name, p.setting) == (name, setting) for p in self.points)

    def words(self, model):
        ratio = self.perplexity(model) / self.before
        return {"forbidden_ratio": ratio}, (f"{ratio:.2f} x",)

    def refusals(self, model):
        asked = self.harmful + self.border
        answers = Undefended(model, self.tokenizer).answer(asked, Generation(ANSWER))
        natural = perplexities(self.model, self.tokenizer, asked, answers)
        found = outcomes(answers, perplexities=natural)
        kinds = found[: len(self.harmful)], found[len(self.harmful) :]
        harmful, border = (
            [kind.count(one) / len(kind) for one in Outcome] for kind in kinds
        )
        shown = (f"{rate:.0%}" for rate in (*harmful, border[0]))
        return {"refused": harmful[0]}, tuple(shown)


def train(comparison, name, forget, layers):
    """RMU at each layer and with each of its options, at some steps of its training."""
    model, tokenizer = comparison.model, comparison.tokenizer
    retain = [render(tokenizer, t) for t in texts(data.benign_prompts("train"))]
    for layer, rate, steering, weight in product(layers, RATES, STEERING, WEIGHTS):
        what = f"layer {layer}, rate {rate:g}, steering {steering:g}, weight {weight:g}"
        if comparison.knows(name, f"{what}, {STEPS[-1]} steps"):
            continue
        options = {"layer": layer, "steering": steering, "weight": weight, "rate": rate}
        for step, changed in rmu(model, forget, retain, **options, steps=STEPS):
            setting = f"{what}, {step} steps"
            if not comparison.knows(name, setting):
                comparison.point(name, setting, changed)


def scaled(comparison, name, path):
    found = Intervention.load(path)
    for factor in SCALES:
        if comparison.knows(name, f"{factor:g} x"):
            continue
        part = found if factor == 1.0 else found.scale(factor)
        with part.applied(comparison.model):
            comparison.point(name, f"{factor:g} x", comparison.model)


def gated(comparison, path):
    found = Intervention.load(path)
    opening, answering = (found.metrics[name] for name in ("opening", "answering"))
    setting = f"opens at {opening:g}, in answers {answering:g}"
    if not comparison.knows("gate", setting):
        with found.applied(comparison.model):
            comparison.point("gate", setting, comparison.model)


def words(model, tokenizer, given):
    comparison = Comparison(model, tokenizer, "words", given.out)
    print("| method | setting | KL | forbidden words |\n| --- | --- | ---: | ---: |")
    if given.pcr is not None:
        scaled(comparison, "PCR", given.pcr)
    forget = [list(one.ids) for one in said(tokenizer, "train", 1)]
    train(comparison, "RMU on words", forget, given.layers)


def refusals(model, tokenizer, given):
    comparison = Comparison(model, tokenizer, "refusals", given.out)
    print(
        "| method | setting | KL | refused | complied | broken | borderline refused |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    if not comparison.knows("base", ""):
        comparison.point("base", "", model)
    if given.tsr is not None:
        scaled(comparison, "TSR", given.tsr)
    for path in given.gate:
        gated(comparison, path)
    harmful = texts(data.harmful_prompts("train"), 48)
    harmless = texts(data.benign_prompts("train"), 48)
    for layer in given.layers:
        changed = added_direction(model, tokenizer, harmful, harmless, layer)
        for strength in ADDED:
            setting = f"layer {layer}, {strength:g} x"
            if not comparison.knows("direction addition", setting):
                comparison.point("direction addition", setting, changed(strength))
    train(
        comparison,
        "RMU on requests",
        [render(tokenizer, text) for text in harmful],
        given.layers,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("effects", nargs="*", default=["words", "refusals"])
    parser.add_argument("--pcr", type=Path)
    parser.add_argument("--tsr", type=Path)
    parser.add_argument("--gate", type=lambda text: text.split(","), default=[])
    parser.add_argument("--layers", default="7,16")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.layers = [int(layer) for layer in given.layers.split(",")]
    model, tokenizer = models.load("smollm2")
    for effect in given.effects:
        {"words": words, "refusals": refusals}[effect](model, tokenizer, given)


if __name__ == "__main__":
    main()
