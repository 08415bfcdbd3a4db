# SPDX-License-Identifier: Apache-2.0
"""What it costs to forbid few words and many, of violence and of style.

A change for each list, at the defaults, measured as `cintervene defend` does it, and
with weights rounded to 4 bits. The longest list is the package's forbidden words and
those of banned_words.txt, of which "phrases" are the first fifty.

    python benchmarks/bench_lists.py
    python benchmarks/bench_lists.py --lists six style --budget small
    python benchmarks/bench_lists.py --lists "five hundred" --out made
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from process_memory import clear, resident

from cintervene import Intervention, ProgressBar, data, defend, evaluate, models
from cintervene.activations.layer_stream import LayerStream
from cintervene.activations.scoring import token_nll
from cintervene.evaluate.robustness.quantised import quantised
from cintervene.evaluate.words.samples import gather
from cintervene.models.parts import ModelParts

STYLE = ["delve", "tapestry", "testament", "landscape", "seamless", "unlock"]
BANNED = Path(__file__).with_name("banned_words.txt")
PHRASES, GROUP = 50, 32
SIX_PHRASES = [
    "delve into", "rich tapestry", "it's important to note",
    "in today's fast-paced world", "navigate the complexities", "a testament to",
]  # fmt: skip


def lists():
    """Name and words of each list."""
    packaged, banned = data.forbidden_words(), data.read_words(BANNED)
    return {
        "six": packaged[:: len(packaged) // 6][:6],
        "style": STYLE,
        "six phrases": SIX_PHRASES,
        "phrases": banned[:PHRASES],
        "hundred": packaged,
        "five hundred": [*packaged, *banned],
    }


def made(model, tokenizer, name, words, out):
    """The change, and what it took: what is in `out` already is not made again."""
    kept = out and out / f"{name}.safetensors"
    if kept and kept.exists():
        return Intervention.load(kept), "", ""
    clear()
    start = time.process_time()
    change = defend(model, tokenizer, forbid=words, progress=ProgressBar())
    seconds = time.process_time() - start
    if kept:
        out.mkdir(parents=True, exist_ok=True)
        change.save(kept, beyond_limits=True)
    return change, f"{seconds:.0f}", f"{resident('VmHWM') / 1e9:.1f}"


def interval(estimate, form=".3g"):
    value, low, high = (
        format(number, form) for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def row(name, change, found, seconds, memory):
    """A line of the table."""
    words = found.forbidden.by_word
    ratios = np.sort([word.after / word.before for word in words])
    said = found.obedience.rate
    tokens = found.forbidden.all_tokens
    size = max(layer.relative_norm for layer in found.layers)
    cells = [
        f"{name}, {len(words)} words", interval(tokens.starting.effect),
        interval(tokens.later.effect),
        f"{np.quantile(ratios, 0.1):.3g} / {ratios[0]:.3g}", f"{(ratios < 5).sum()}",
        f"{said.before.value:.0%} to {interval(said.after, '.0%')}",
        f"{found.drift.kl.value:.4f} / {interval(found.drift.kl_elsewhere, '.4f')}",
        interval(found.benign.all_tokens.together.effect, ".3f"),
        f"{found.drift.texts.effect.value:.3f}",
        f"{change.metrics.get('neurons', 0)}", f"{size:.0%}", seconds, memory,
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def nats(model, spans):
    """Mean negative log-likelihood of the words."""
    parts = ModelParts.find(model)
    tokens = torch.tensor([token for span in spans for token in span.targets])
    states = LayerStream.of(parts.decoder, spans, 0).final()
    return float(np.mean(token_nll(parts.unembedding, states, tokens)))


def rounded(model, tokenizer, change, bits, size):
    """What is left where base and changed model are both rounded."""
    sample = gather(tokenizer, change.options["forbid"], "held_out", size)
    for kind in ("forbidden", "benign"):
        spans = sample.word_spans[kind]
        with quantised(model, bits, GROUP):
            base = nats(model, spans)
        with change.applied(model), quantised(model, bits, GROUP):
            changed = nats(model, spans)
        print(f"rounded to {bits} bits, {kind}: {np.exp(changed - base):.3g} x")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lists", nargs="+", metavar="NAME", default=["six", "style"])
    parser.add_argument("--budget", choices=("small", "default"), default="default")
    parser.add_argument("--out", type=Path, help="folder that keeps what was made")
    parser.add_argument("--bits", type=int, default=0, help="round to so many as well")
    arguments = parser.parse_args()
    model, tokenizer = models.load("smollm2")
    # Of what the table does not show, as little as there can be.
    size = replace(
        evaluate.EvaluationSize.named(arguments.budget),
        related=1, elicitations=1, running_texts=1,
    )  # fmt: skip
    known = lists()
    print(
        "| list | first | later | tenth percentile / least | below 5 x "
        "| said when asked | KL / elsewhere | benign | prose | neurons | norm "
        "| CPU-s | peak, GB |\n| --- |" + " ---: |" * 12
    )
    for name in arguments.lists:
        change, *costs = made(model, tokenizer, name, known[name], arguments.out)
        # An answer of each kind for every word.
        each = replace(size, forbidden=max(size.forbidden, len(known[name])))
        found = evaluate.measure(model, tokenizer, change, size=each)
        row(name, change, found, *costs)
        if arguments.bits:
            rounded(model, tokenizer, change, arguments.bits, each)


if __name__ == "__main__":
    main()
