# SPDX-License-Identifier: Apache-2.0
"""Gates: a few neurons of one layer recognise harmful requests and refuse them.

    python examples/gate.py [--model smollm2]

Formulas, limits and figures: docs/methods/gate.md. The budget is small; the defaults
take hundreds of requests and choose the layer.
"""

import argparse

import cintervene as ci
from cintervene import baselines, data, models


def main() -> None:
    """Learn from a few requests, and ask held-out ones, harmful and harmless."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a name or a directory")
    model, tokenizer = models.load(parser.parse_args().model)

    config = ci.GateConfig(
        harmful=[prompt.text for prompt in data.harmful_prompts("train")[:32]],
        layers=[model.config.num_hidden_layers * 3 // 5],
        thresholds=(0.5, -0.5),  # log odds; "auto" chooses on the tuning split
        steps=8, benign=40, answer_tokens=8,
    )  # fmt: skip
    intervention = ci.defend(model, tokenizer, config)
    print(intervention.summary())
    print("within the limits:", intervention.metrics["within_limits"])

    asked = data.harmful_prompts("held_out")[:3], data.benign_prompts("held_out")[:3]
    requests = [prompt.text for prompts in asked for prompt in prompts]
    answerer = baselines.Undefended(model, tokenizer)
    with intervention.applied(model):
        answers = answerer.answer(requests, baselines.Generation(12))
    for request, answer in zip(requests, answers, strict=True):
        print(f"{request}\n  {answer!r}")


if __name__ == "__main__":
    main()
