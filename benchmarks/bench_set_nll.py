# SPDX-License-Identifier: Apache-2.0
"""set_nll with gradient against torch autograd and a copy of the same bytes."""

import argparse

import numpy as np
import torch
from timing import best_times, report

import cintervene as ci


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=128256)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(args.rows, args.vocab)).astype(np.float32) * 4
    ids = rng.choice(args.vocab, args.tokens, replace=False)
    grad = np.empty_like(logits)
    leaf = torch.from_numpy(logits).clone().requires_grad_()
    half = torch.from_numpy(logits).bfloat16()
    index = torch.from_numpy(ids)
    source, target = torch.from_numpy(logits), torch.from_numpy(grad)

    def autograd() -> torch.Tensor:
        leaf.grad = None
        every = torch.logsumexp(leaf, -1)
        (every - torch.logsumexp(leaf[:, index], -1)).sum().backward()
        return leaf.grad

    ci.set_nll(logits, ids, grad=grad)
    assert np.allclose(grad, autograd().numpy(), atol=1e-6)
    best = best_times(
        {
            "set_nll, grad": lambda: ci.set_nll(logits, ids, grad=grad),
            "set_nll, grad, new array": lambda: ci.set_nll(logits, ids, grad=True),
            "set_nll, loss only": lambda: ci.set_nll(logits, ids),
            "set_nll, bfloat16, grad": lambda: ci.set_nll(half, ids, grad=grad),
            "torch autograd": autograd,
            "copy, one thread": lambda: np.copyto(grad, logits),
            "copy, all threads": lambda: target.copy_(source),
        },
        args.repeats,
    )
    report(f"set_nll ({args.rows}, {args.vocab}) float32", best, "set_nll, grad")


if __name__ == "__main__":
    main()
