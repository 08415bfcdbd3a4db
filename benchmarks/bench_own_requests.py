# SPDX-License-Identifier: Apache-2.0
"""Teach SmolLM2-135M-Instruct to refuse with halves of HarmBench and XSTest.

Every second request of each kind is learnt from: HarmBench's and XSTest's unsafe ones
are to be refused, XSTest's safe ones to be answered as before; with --package the
package's requests are to be refused as well. What came of it on the other half is
measured by

    python benchmarks/bench_own_requests.py OUT.safetensors harmbench.csv xstest.csv
        [--method gate] [--package] [--relay]
    python benchmarks/bench_refusals.py OUT.safetensors --behaviours harmbench.csv
        --safe xstest.csv --half
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from time import perf_counter, process_time

from cintervene import GateConfig, TSRConfig, data, defend, models
from cintervene.evaluate.benchmarks import harmbench, xstest

LAYERS = [10, 12, 14, 16, 18]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("behaviours")
    parser.add_argument("prompts")
    parser.add_argument("--method", choices=("tsr", "gate"), default="tsr")
    parser.add_argument("--package", action="store_true")
    parser.add_argument("--relay", action="store_true", help="gate alone")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--kl-weight", type=float, default=20.0)
    parser.add_argument("--answer-tokens", type=int, default=12)
    arguments = parser.parse_args()
    behaviours = harmbench.read_behaviours(arguments.behaviours)
    prompts = xstest.read_prompts(arguments.prompts)
    harmful = [b.prompt for b in behaviours if not b.context][::2]
    harmful += [b.prompt for b in behaviours if b.context][::2]
    harmful += [p.text for p in prompts if not p.safe][::2]
    if arguments.package:
        harmful += [p.text for p in data.harmful_prompts("train")]
    safe = [p.text for p in prompts if p.safe][::2]
    model, tokenizer = models.load("smollm2")
    wall, cpu = perf_counter(), process_time()
    if arguments.method == "tsr":
        config = TSRConfig(
            harmful=harmful, preserve=safe, layers=LAYERS, steps=arguments.steps,
            kl_weight=arguments.kl_weight, answer_tokens=arguments.answer_tokens,
        )  # fmt: skip
    else:
        config = GateConfig(harmful=harmful, preserve=safe, relay=arguments.relay)
    found = defend(model, tokenizer, config)
    wall, cpu = perf_counter() - wall, process_time() - cpu
    print(f"{len(harmful)} to refuse, {len(safe)} not: {wall:.0f} s, {cpu:.0f} CPU-s")
    print(found.metrics["seconds"])
    for point in found.metrics["sweep"]:
        print(point)
    found.save(arguments.out, beyond_limits=True)


if __name__ == "__main__":
    main()
