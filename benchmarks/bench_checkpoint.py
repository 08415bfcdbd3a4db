# SPDX-License-Identifier: Apache-2.0
"""Memory and seconds of changing a saved model that has one large weight, on Linux.

What is printed is the largest resident memory while `export.checkpoint` runs, less what
was resident before, over the size of the weight; each phase by itself too.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from cintervene import LowRankUpdate, export
from cintervene.export.checkpoint import write as checkpoints
from cintervene.export.checkpoint.shards import SINGLE, Shards
from cintervene.intervention.edit import Edit
from cintervene.intervention.intervention import Intervention

NAME = "model.layers.0.mlp.down_proj.weight"


def write_base(directory: Path, d_out: int, d_in: int) -> None:
    weight = torch.empty(d_out, d_in, dtype=torch.bfloat16).normal_(std=0.02)
    save_file({NAME: weight}, directory / SINGLE, {"format": "pt"})


def random_change(directory: Path, rank: int) -> Intervention:
    weight = Shards(directory).read(NAME)
    rng = np.random.default_rng(0)
    left = rng.normal(size=(weight.shape[0], rank)) * 1e-2
    update = LowRankUpdate(left, rng.normal(size=(rank, weight.shape[1])) * 1e-2)
    return Intervention({NAME: Edit.of(NAME, weight, update, 0, False, False)})


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since `measure` began."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def measure(title: str, size: int, run: Callable[[], object]) -> None:
    Path("/proc/self/clear_refs").write_text("5", "utf-8")
    before, start = resident("VmRSS"), time.perf_counter()
    run()
    seconds, more = time.perf_counter() - start, resident("VmHWM") - before
    print(f"{title:<24}{more / 1e6:8.0f} MB{more / size:8.2f} x{seconds:8.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-out", type=int, default=4096)
    parser.add_argument("--d-in", type=int, default=14336)
    parser.add_argument("--rank", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        base, changed = Path(work, "base"), Path(work, "changed")
        base.mkdir()
        write_base(base, args.d_out, args.d_in)
        change = random_change(base, args.rank)
        size = 2 * args.d_out * args.d_in
        shards = Shards(base)
        print(f"bfloat16 ({args.d_out}, {args.d_in}), {size / 1e6:.0f} MB")
        measure("checkpoint", size, lambda: export.checkpoint(change, base, changed))
        after = Shards(changed)
        measure("its rounding errors", size,
                lambda: checkpoints._errors(change, shards, after))  # fmt: skip


if __name__ == "__main__":
    main()
