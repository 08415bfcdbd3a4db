# SPDX-License-Identifier: Apache-2.0
"""TSR or ARR against plain PyTorch on the same problem: seconds of a pass.

The problem is that of `methods/tsr/problem.py`: the package's requests, three refusals
each, and its benign prompts, for one layer of SmolLM2-135M-Instruct; or that of
`methods/arr/problem.py`, with the model's own answers for refusals. The plain
implementation trains the layer's weight with autograd as one would write it down: the
whole model runs on whole sequences, padded in batches of the same number of tokens,
with logits where the loss looks and no gradient for other weights (and a cross entropy,
which costs less, in place of the divergence). Both make one pass
forward and back over the same examples; what ours computes once is timed beside it.
Products of half precision are widened for both where that is quicker.

    python benchmarks/bench_tsr.py [--arr] [LAYER ...]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from functools import partial
from time import perf_counter

import torch

from cintervene import ARRConfig, TSRConfig, data, models
from cintervene.activations.batches import group_by_length
from cintervene.activations.upper_layers import differentiable
from cintervene.methods.arr.problem import RiskRegion
from cintervene.methods.tsr.examples import prepare
from cintervene.methods.tsr.problem import SafeRegion
from cintervene.models.parts import ModelParts
from cintervene.models.precision import quick_products
from cintervene.utils.progress import silent

REQUESTS = 24
BATCH_TOKENS = 2048
TURNS = 3


def plain_epoch(model, target, examples):
    """One pass with autograd through the whole model; benign examples too."""
    head = model.get_output_embeddings()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is target.weight)
    target.weight.grad = None
    for group in group_by_length([len(one.ids) for one in examples], BATCH_TOKENS):
        batch = [examples[i] for i in group]
        length = max(len(one.ids) for one in batch)
        ids = torch.tensor(
            [[*one.ids, *one.ids[:1] * (length - len(one.ids))] for one in batch]
        )
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        rows = [(at, p) for at, one in enumerate(batch) for p in one.positions]
        at, positions = torch.tensor(rows).T
        logits = head(hidden[at, positions]).float()
        tokens = [
            one.target_sets[k][0] if one.target_sets else one.ids[0]
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
    parts = ModelParts.find(model)
    config = (ARRConfig if arguments.arr else TSRConfig)(
        harmful=[one.text for one in data.harmful_prompts("train")[:REQUESTS]],
        radius=0.1, parts=1, answers=40, answer_tokens=4, borderline=340,
    )  # fmt: skip
    region = partial(RiskRegion, nats=5.0) if arguments.arr else SafeRegion
    refusals = None if arguments.arr else data.safe_refusals()
    examples = prepare(model, tokenizer, config, refusals, silent)
    benign = examples.benign[: 2 * REQUESTS]
    examples = type(examples)(examples.harmful, benign, [], [])
    flat = [one for group in (*examples.harmful, *benign) for one in group]
    tokens = sum(len(one.ids) for one in flat)
    print(f"{len(flat)} examples, {tokens} tokens")
    for layer in arguments.layers:
        (target,) = parts.targets([layer], "down_proj")
        start = perf_counter()
        problem = region(parts, [target], examples, config)
        once = perf_counter() - start
        change = torch.zeros(target.d_in, target.d_out)
        ours, plain = [], []
        for _ in range(TURNS):
            start = perf_counter()
            with differentiable(model):
                problem.gradients(0, [change])
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
