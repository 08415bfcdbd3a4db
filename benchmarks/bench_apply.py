# SPDX-License-Identifier: Apache-2.0
"""LowRankUpdate.apply against the ways to write it in torch."""

import argparse

import numpy as np
import torch
from timing import best_times, report

import cintervene as ci

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-out", type=int, default=4096)
    parser.add_argument("--d-in", type=int, default=14336)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    left = rng.normal(size=(args.d_out, args.rank)).astype(np.float32) * 1e-3
    right = rng.normal(size=(args.rank, args.d_in)).astype(np.float32) * 1e-3
    update = ci.LowRankUpdate(left, right)
    a, b = torch.from_numpy(left), torch.from_numpy(right)
    dtype = DTYPES[args.dtype]
    weights = (torch.randn(args.d_out, args.d_in) * 0.02).to(dtype)
    low_a, low_b = a.to(dtype), b.to(dtype)
    copy = torch.empty_like(weights)

    def exact() -> torch.Tensor:
        return weights.copy_(torch.addmm(weights.float(), a, b))

    expected = torch.addmm(weights.float(), a, b).to(dtype)
    got = update.apply(weights, out=torch.empty_like(weights))
    assert (got != expected).float().mean() < 1e-2
    best = best_times(
        {
            "apply": lambda: update.apply(weights),
            "torch, one rounding (float32 product)": exact,
            "torch, W += (A @ B).to(dtype)": lambda: weights.add_((a @ b).to(dtype)),
            "torch, W.addmm_, factors rounded": lambda: weights.addmm_(low_a, low_b),
            "copy of the weights, the limit": lambda: copy.copy_(weights),
        },
        args.repeats,
    )
    shape = f"({args.d_out}, {args.d_in}) rank {args.rank} {args.dtype}"
    report(f"apply {shape}", best, "apply")


if __name__ == "__main__":
    main()
