# SPDX-License-Identifier: Apache-2.0
"""TSR or ARR against plain PyTorch on the same problem: seconds of a pass over lessons.

The problem is `cintervene.models.safe_region`'s: the package's requests, three refusals
each, and its benign prompts, for one layer of SmolLM2-135M-Instruct; or that of
`risk_region`, with the model's own answers for refusals. The plain
implementation trains the layer's weight with autograd as one would write it down: the
whole model runs on whole sequences, padded in batches of the same number of tokens,
with logits where the loss looks and no gradient for other weights (and a cross entropy,
which costs less, in place of the divergence). Both make one pass
forward and back over the same lessons; what ours computes once is timed beside it.
Products of half precision are widened for both where that is quicker.

    python benchmarks/bench_tsr.py [--arr] [LAYER ...]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from functools import partial
from time import perf_counter

import torch

from cintervene import data, models
from cintervene.activations.batches import group_by_length
from cintervene.activations.upper_layers import differentiable
from cintervene.methods.arr.problem import RiskRegion
from cintervene.methods.tsr.config import TSROptions
from cintervene.methods.tsr.problem import SafeRegion
from cintervene.models import find_decoder, find_targets, find_unembedding
from cintervene.models.precision import quick_products
from cintervene.prompts.refusal_examples import prepare
from cintervene.utils.progress import silent

REQUESTS = 24
BATCH_TOKENS = 2048
TURNS = 3


def plain_epoch(model, target, lessons):
    """One pass with autograd through the whole model; benign lessons too."""
    head = model.get_output_embeddings()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is target.weight)
    target.weight.grad = None
    for group in group_by_length([len(one.ids) for one in lessons], BATCH_TOKENS):
        batch = [lessons[i] for i in group]
        length = max(len(one.ids) for one in batch)
        ids = torch.tensor(
            [[*one.ids, *one.ids[:1] * (length - len(one.ids))] for one in batch]
        )
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        rows = [(at, p) for at, one in enumerate(batch) for p in one.positions]
        at, positions = torch.tensor(rows).T
        logits = head(hidden[at, positions]).float()
        tokens = [
            one.sets[k][0] if one.sets else one.ids[0]
            for one in batch
            for k in range(len(one.positions))
        ]
        torch.nn.functional.cross_entropy(
            logits, torch.tensor(tokens), reduction="sum"
        ).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@quick_products()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", type=int, default=[16, 20, 25])
    parser.add_argument("--arr", action="store_true")
    arguments = parser.parse_args()
    model, tokenizer = models.load("smollm2")
    decoder = find_decoder(model)
    requests = [one.text for one in data.harmful_prompts("train")[:REQUESTS]]
    options = TSROptions(parts=1)
    region = partial(RiskRegion, nats=5.0) if arguments.arr else SafeRegion
    refusals = None if arguments.arr else data.safe_refusals()
    lessons = prepare(model, tokenizer, requests, refusals, [], 40, 4, 340, silent)
    benign = lessons.benign[: 2 * REQUESTS]
    lessons = type(lessons)(lessons.harmful, benign, [], [])
    flat = [one for group in (*lessons.harmful, *benign) for one in group]
    tokens = sum(len(one.ids) for one in flat)
    print(f"{len(flat)} lessons, {tokens} tokens")
    for layer in arguments.layers:
        (target,) = find_targets(model, [layer], decoder)
        start = perf_counter()
        problem = region(
            model, [target], decoder, find_unembedding(model, decoder), lessons, 0.1,
            options,
        )  # fmt: skip
        once = perf_counter() - start
        change = torch.zeros(target.d_in, target.d_out)
        ours, plain = [], []
        for _ in range(TURNS):
            start = perf_counter()
            with differentiable(model):
                problem.gradients(problem.parts[0], [change])
            ours.append(perf_counter() - start)
            start = perf_counter()
            plain_epoch(model, target, flat)
            plain.append(perf_counter() - start)
        print(
            f"layer {layer}: ours {min(ours):.2f} s (once before: {once:.1f} s), plain "
            f"{min(plain):.2f} s, {min(plain) / min(ours):.1f} x"
        )


if __name__ == "__main__":
    main()
