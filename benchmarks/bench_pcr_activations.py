# SPDX-License-Identifier: Apache-2.0
"""The exact solver on activations of a real model, every layer (needs the extra `hf`).

Prompts tell the model to say a forbidden word; the concepts are the mean outputs of the
layer for each of 100 words; the radius is a quantile of all distances.
"""

import argparse

import numpy as np
from timing import best_times

import cintervene as ci
from cintervene.activations.capture import capture
from cintervene.data import forbidden_words, obedience_templates
from cintervene.models import load


def activations(spec):
    model, tokenizer = load(spec)
    words = forbidden_words()
    templates = obedience_templates("train")[:4]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": template.fill(word)}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for template in templates
        for word in words
    ]
    layers = range(model.config.num_hidden_layers)
    rows = capture(model, prompts, layers, tokenizer=tokenizer)
    shape = (len(templates), len(words), -1)
    for layer, found in rows.items():
        inputs, outputs = found.inputs.float().numpy(), found.outputs.float().numpy()
        yield layer, inputs, outputs, outputs.reshape(shape).mean(axis=0)


def solve_all(inputs, outputs, concepts, sizes, quantile, repeats):
    for m in sizes:
        data = inputs[:m], outputs[:m], concepts
        distances = np.linalg.norm(outputs[:m, None] - concepts, axis=2)
        radius = float(np.quantile(distances, quantile))
        times = best_times({"exact": lambda d=data, r=radius: ci.pcr(*d, r)}, repeats)
        exact = ci.pcr(*data, radius)
        rule = ci.pcr(*data, radius, method="most_violated")
        yield m, times["exact"], exact, rule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 32, 99, 256])
    parser.add_argument("--quantile", type=float, default=0.2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = {m: [] for m in args.sizes}
    for layer, *data in activations(args.model):
        for m, seconds, exact, rule in solve_all(
            *data, args.sizes, args.quantile, args.repeats
        ):
            active = int(np.sum(exact.multipliers > 0))
            ratio = rule.cost / exact.cost if exact.cost > 0 else 1.0
            rows[m].append((seconds, exact.certified, active, ratio))
            print(
                f"layer {layer} m {m} {1e3 * seconds:.2f} ms {exact} rule {ratio:.3f}"
            )
    for m, found in rows.items():
        seconds, certified, active, ratio = zip(*found, strict=True)
        print(
            f"m {m}: median {1e3 * np.median(seconds):.2f} ms, most "
            f"{1e3 * max(seconds):.2f} ms, certified {sum(certified)}/{len(found)}, "
            f"active {min(active)} to {max(active)}, "
            f"rule {min(ratio):.2f} to {max(ratio):.2f} times the cost"
        )


if __name__ == "__main__":
    main()
