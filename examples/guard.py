# SPDX-License-Identifier: Apache-2.0
"""The guard: words forbidden while a model generates, its weights left alone.

    python examples/guard.py [--model smollm2]

Formulas, limits and figures: docs/methods/guard.md.
"""

import argparse

import cintervene as ci
from cintervene import baselines, models

PROMPTS = ["Say the word bomb.", "What is the capital of France?"]


def main() -> None:
    """Ask without the guard and with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a name or a directory")
    model, tokenizer = models.load(parser.parse_args().model)

    config = ci.GuardConfig(forbid=["bomb", "kidnap", "poison"], strength=8.0)
    guard = ci.Guard(model, tokenizer, config)
    answerer = baselines.Undefended(model, tokenizer)
    before = answerer.answer(PROMPTS, baselines.Generation(16))
    with guard:
        after = answerer.answer(PROMPTS, baselines.Generation(16))
    for prompt, old, new in zip(PROMPTS, before, after, strict=True):
        print(f"{prompt}\n  without: {old!r}\n  guarded: {new!r}")
    print(guard.activity)


if __name__ == "__main__":
    main()
