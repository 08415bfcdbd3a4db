# SPDX-License-Identifier: Apache-2.0
"""Seconds and memory of what PCR and TSR do in layers of a random model, two versions.

git worktree add /tmp/before COMMIT && cp cintervene/*.so /tmp/before/cintervene/
python benchmarks/bench_layers.py --before /tmp/before

Each run has a process of its own, and the two packages take turns. Given are the least
CPU seconds, and the most memory beyond what the process had when the package was
imported and the model was made and run once, in units of one (d_in, d_in) matrix of
float64.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from time import process_time

from process_memory import clear, resident

ROOT = Path(__file__).parent.parent
VOCABULARY = 2048


def make_model(args):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=args.d_out, intermediate_size=args.d_in,
        num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def solve_pcr(model, rng, args):
    """Two strengths, without prompts and tuning; norms of the changes."""
    from cintervene.methods.pcr.config import PCRConfig
    from cintervene.methods.pcr.method import constrain
    from cintervene.models.parts import ModelParts
    from cintervene.prompts.calibration import Calibration
    from cintervene.prompts.target_spans import TargetSpan

    def spans(count, length, start):
        rows = rng.integers(3, VOCABULARY, size=(count, length)).tolist()
        weights = (1.0,) * (length - start)
        return [TargetSpan(tuple(row), start, weights=weights) for row in rows]

    config = PCRConfig(forbid=["bomb"], hinge="off", slack=1.0, layers=[2, 3])
    texts = spans(60, 24, 22), spans(60, 24, 22), spans(args.benign // 60, 61, 1)
    calibration = Calibration(*texts, [], [], [])
    layerwise = constrain(ModelParts.find(model), calibration, config)
    changes = [change for nats in (2.0, 4.0) for change in layerwise.solve(nats)]
    return [change.update.norm for change in changes]


def solve_tsr(model, rng, args):
    """Four steps, without prompts and tuning; norms of the changes."""
    from cintervene import TSRConfig
    from cintervene.activations.upper_layers import differentiable
    from cintervene.methods.tsr.examples import RefusalExamples
    from cintervene.methods.tsr.problem import SafeRegion
    from cintervene.models.parts import ModelParts
    from cintervene.prompts.refusal_examples import TargetExample

    def examples(count, length):
        groups = []
        for row in rng.integers(3, VOCABULARY, size=(count, length)).tolist():
            sets = tuple((token,) for token in row[-2:])
            groups.append([TargetExample(tuple(row), 4, length - 2, sets)])
        return groups

    parts = ModelParts.find(model)
    problem = SafeRegion(
        parts, parts.targets([2, 3], "down_proj"),
        RefusalExamples(examples(16, 12), examples(args.benign // 60, 64), [], []),
        TSRConfig(radius=0.5, steps=4, parts=1),
    )  # fmt: skip
    with differentiable(model):
        for _ in problem.descend():
            pass
    return [update.norm for _, update in problem.updates]


def solve_neurons(model, rng, args):
    """Which 64 neurons of the last layer are given up; the size of that change."""
    import torch

    from cintervene.methods.common.gated_mlp_discovery import find_gated_mlp
    from cintervene.methods.pcr.hinge.places import give_up
    from cintervene.models.parts import ModelParts

    parts = ModelParts.find(model)
    mlp = find_gated_mlp(parts.decoder, parts.n_layers - 1)
    shape = 2, args.benign, args.d_out
    inputs, states = torch.from_numpy(rng.standard_normal(shape, dtype="float32"))
    given = give_up(mlp, parts.unembedding, inputs, states, 64)
    return [float(place + 1) for place in given.places] + [given.made_up.norm]


METHODS = {"pcr": solve_pcr, "tsr": solve_tsr, "neurons": solve_neurons}
MODULES = ("pcr.method", "tsr.problem", "pcr.hinge.places")


def run(name, args):
    """One method in this process: seconds, bytes and norms, as JSON."""
    import numpy as np
    import torch

    model = make_model(args)
    for module in MODULES:
        import_module(f"cintervene.methods.{module}")
    # What libraries take when a model is run is no more a method's than they are.
    with torch.no_grad():
        model(torch.arange(64)[None])
    clear()
    before, start = resident("VmRSS"), process_time()
    norms = METHODS[name](model, np.random.default_rng(0), args)
    seconds, more = process_time() - start, resident("VmHWM") - before
    print(json.dumps({"seconds": seconds, "bytes": more, "norms": norms}))


def compare(name, args):
    """Both packages in turns."""
    import numpy as np

    least, most, norms = [np.inf] * 2, [0] * 2, [[], []]
    sizes = ("d_out", "d_in", "benign")
    given = [f"--{size.replace('_', '-')}={getattr(args, size)}" for size in sizes]
    for _ in range(args.turns):
        for way, root in enumerate((args.before, ROOT)):
            done = subprocess.run(
                [sys.executable, __file__, name, "--alone", *given],
                env=os.environ | {"PYTHONPATH": str(root)}, cwd=root,
                stdout=subprocess.PIPE, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            least[way] = min(least[way], found["seconds"])
            most[way] = max(most[way], found["bytes"])
            norms[way] = np.array(found["norms"])
    unit = 8 * args.d_in**2
    error = np.abs(norms[1] / norms[0] - 1.0).max()
    print(
        f"{name}, d_out {args.d_out}, d_in {args.d_in}, {args.benign} benign rows: "
        f"{least[0]:.1f} -> {least[1]:.1f} CPU s, {least[0] / least[1]:.2f} x; "
        f"{most[0] / unit:.2f} -> {most[1] / unit:.2f} times {unit / 1e6:.0f} MB; "
        f"norms of the changes differ by {error:.0e}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--before", type=Path, help="another checkout of the package")
    parser.add_argument("--alone", action="store_true", help="in this process only")
    parser.add_argument("--d-out", type=int, default=512)
    parser.add_argument("--d-in", type=int, default=4096)
    parser.add_argument("--benign", type=int, default=6000, help="rows")
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    for name in args.names or METHODS:
        (run if args.alone else compare)(name, args)


if __name__ == "__main__":
    main()
