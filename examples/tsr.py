# SPDX-License-Identifier: Apache-2.0
"""TSR: teach a model to refuse a dozen requests, within a small ball of changes.

    python examples/tsr.py [--model smollm2]

Formulas, limits and figures: docs/methods/tsr.md. So few requests and steps show how it
is done, not how well: the defaults take hundreds of requests and 40 steps.
"""

import argparse

import cintervene as ci
from cintervene import baselines, data, models


def main() -> None:
    """Learn from requests of the training split, ask some of the held-out one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a name or a directory")
    model, tokenizer = models.load(parser.parse_args().model)

    middle = model.config.num_hidden_layers // 2
    config = ci.TSRConfig(
        harmful=[prompt.text for prompt in data.harmful_prompts("train")[:12]],
        layers=[middle, middle + 1],  # "auto" takes five, chosen on the tuning split
        safe=["Sorry, but I can't help with that."],
        steps=6, parts=2, answers=12, answer_tokens=6, borderline=24,
    )  # fmt: skip
    intervention = ci.defend(model, tokenizer, config)
    print(intervention.summary())
    for point in intervention.metrics["sweep"]:
        print(point)

    requests = [prompt.text for prompt in data.harmful_prompts("held_out")[:3]]
    answerer = baselines.Undefended(model, tokenizer)
    with intervention.applied(model):
        answers = answerer.answer(requests, baselines.Generation(12))
    for request, answer in zip(requests, answers, strict=True):
        print(f"{request}\n  {answer!r}")


if __name__ == "__main__":
    main()
