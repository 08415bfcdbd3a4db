# SPDX-License-Identifier: Apache-2.0
"""Functions run by several processes at once, which can send each other tensors."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

# Seconds; a process that waits for one that failed would wait for ever.
PATIENCE = 240


def in_processes(
    world: int, directory: Path, run: Callable[..., Any], *given: Any
) -> None:
    """Call ``run(rank, *given)`` in so many processes; fails where one of them does.

    Parameters
    ----------
    world : int
    directory : Path
        An empty one.
    run : callable
        Of a module.
    """
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    processes = [
        context.Process(target=_join, args=(rank, world, directory, errors, run, given))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    failed = None
    for process in processes:
        process.join(PATIENCE)
        if process.exitcode != 0:
            failed = process.exitcode
            break
    for process in processes:
        process.kill()
        process.join()
    assert errors.empty(), errors.get()
    assert failed is None, f"a process ended with {failed}"


def _join(
    rank: int, world: int, directory: Path, errors: Any, run: Any, given: Any
) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(directory / "store"), world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        run(rank, *given)
    except BaseException:
        errors.put(f"rank {rank}: {traceback.format_exc()}")
        raise SystemExit(1) from None
    finally:
        distributed.destroy_process_group()
