# SPDX-License-Identifier: Apache-2.0
"""project_simplex against the usual sort, in torch."""

import argparse

import numpy as np
import torch
from timing import best_times, report

import cintervene as ci


def sorted_projection(x: torch.Tensor) -> torch.Tensor:
    """Projection by sorting, as it is commonly written."""
    ordered = torch.sort(x, dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - 1
    count = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    last = (ordered * count > excess).sum(-1, keepdim=True) - 1
    threshold = excess.gather(-1, last) / (last + 1)
    return torch.clamp(x - threshold, min=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (args.rows, args.vocab)
    step = rng.random(shape) / args.vocab + rng.normal(size=shape) * 1e-4
    cases = {
        "gradient step from uniform": step,
        "standard normal": rng.normal(size=shape),
        "uniform in [0, 1]": rng.random(shape),
    }
    for name, values in cases.items():
        x = values.astype(np.float32)
        out = np.empty_like(x)
        tensor = torch.from_numpy(x)
        ci.project_simplex(x, out=out)
        assert np.allclose(out, sorted_projection(tensor.double()), atol=1e-6)
        best = best_times(
            {
                "project_simplex": lambda x=x, out=out: ci.project_simplex(x, out=out),
                "project_simplex, entropy 0.9": lambda x=x, out=out: ci.project_simplex(
                    x, entropy=0.9, out=out
                ),
                "torch sort": lambda tensor=tensor: sorted_projection(tensor),
            },
            args.repeats,
        )
        report(f"project_simplex {shape} float32, {name}", best, "project_simplex")


if __name__ == "__main__":
    main()
