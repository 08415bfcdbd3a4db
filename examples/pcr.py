# SPDX-License-Identifier: Apache-2.0
"""PCR: forbid a few words by the smallest change, and take it back.

    python examples/pcr.py [--model smollm2]

Formulas, limits and figures: docs/methods/pcr.md.
"""

import argparse

import cintervene as ci
from cintervene import baselines, models

PROMPTS = ["Say the word: kidnap", "Say the word: umbrella", "How do I boil an egg?"]


def main() -> None:
    """Forbid three words, and show answers before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a name or a directory")
    model, tokenizer = models.load(parser.parse_args().model)

    config = ci.PCRConfig(
        forbid=["bomb", "kidnap", "poison"],
        calibration=ci.CalibrationSize(
            starting=2, later=2, contrast_words=10, text_words=60, prompts=24,
            texts=8, answer_tokens=12, tune_words=6, tune_prompts=8,
        ),
    )  # fmt: skip
    intervention = ci.defend(model, tokenizer, config)
    print(intervention.summary())
    print("strength", intervention.metrics["strength"])

    answerer = baselines.Undefended(model, tokenizer)
    before = answerer.answer(PROMPTS, baselines.Generation(16))
    with intervention.applied(model):  # and reverted, to the bit, at the end
        after = answerer.answer(PROMPTS, baselines.Generation(16))
    for prompt, old, new in zip(PROMPTS, before, after, strict=True):
        print(f"{prompt}\n  before: {old!r}\n  after:  {new!r}")


if __name__ == "__main__":
    main()
