# SPDX-License-Identifier: Apache-2.0
"""bfloat16 products as torch makes them, and widened to float32, on this processor.

Forward passes of SmolLM2-135M-Instruct and greedy answers; on processors with AVX-512
the package leaves products to torch.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse

import torch
from timing import best_times, report

from cintervene import data, models
from cintervene.models.precision import WidenedProducts
from cintervene.prompts.chat import generate, render

PROMPTS, TOKENS = 16, 8
# Without the function's own context of quick products.
answer = generate.__wrapped__  # type: ignore[attr-defined]


def widened(work):
    def run():
        with WidenedProducts():
            work()

    return run


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    model, tokenizer = models.load("smollm2")
    asked = [p.text for p in data.benign_prompts("tune")[:PROMPTS]]
    prompts = [render(tokenizer, text) for text in asked]
    ids = torch.tensor([(prompts[0] * 64)[:1024]])

    def forward():
        with torch.no_grad():
            model(input_ids=ids)

    def answers():
        answer(model, tokenizer, prompts, TOKENS)

    kernels = torch.backends.cpu.get_cpu_capability()
    for title, work in (
        ("a pass of 1,024 tokens", forward),
        (f"{PROMPTS} answers of {TOKENS} tokens", answers),
    ):
        both = {"widened to float32": widened(work), "as torch does it": work}
        report(f"{title}, torch: {kernels}", best_times(both, 3), "widened to float32")


if __name__ == "__main__":
    main()
