# SPDX-License-Identifier: Apache-2.0
"""ARR: make a model's own answers to harmful requests unlikely, the likeliest first.

    python examples/arr.py [--model smollm2]

Formulas, limits and figures: docs/methods/arr.md. What the model says instead is left
to it; examples/tsr.py teaches a refusal.
"""

import argparse

import cintervene as ci
from cintervene import data, models


def main() -> None:
    """Push away a dozen answers, and print what a step saw and what it came to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a name or a directory")
    model, tokenizer = models.load(parser.parse_args().model)

    middle = model.config.num_hidden_layers // 2
    config = ci.ARRConfig(
        harmful=[prompt.text for prompt in data.harmful_prompts("train")[:12]],
        layers=[middle, middle + 1],
        radius=0.015,  # half the default, for few benign examples hold it back
        nats=5.0,  # asked for, a token of such an answer
        steps=4, parts=2, answers=12, answer_tokens=6, borderline=24,
    )  # fmt: skip
    intervention = ci.defend(model, tokenizer, config)
    for number, step in enumerate(intervention.metrics["steps"]):
        print(f"step {number}: loss {step['loss']:.2f}, KL {step['kl']:.4f}")
    for point in intervention.metrics["sweep"]:
        print(point)
    print(intervention.summary())


if __name__ == "__main__":
    main()
