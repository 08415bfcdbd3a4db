# SPDX-License-Identifier: Apache-2.0
"""How the C core runs on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from cintervene import _core
from cintervene.utils.validation import check_whole

__all__ = ["Config", "show_config", "thread_limit"]


class Config(TypedDict):
    """What :func:`show_config` tells."""

    cpu: str
    threads: int
    lapack: str


def show_config() -> Config:
    """Kernels, threads and LAPACK in use.

    Returns
    -------
    dict
        ``cpu``: kernel table, "baseline", "avx2", "avx512" or "neon" (the environment
        variable ``CINTERVENE_CPU`` at import overrides the choice). ``threads``:
        threads that a large call would use. ``lapack``: description of the library.
    """
    return Config(**_core.config())


@contextmanager
def thread_limit(limit: int) -> Iterator[None]:
    """Use at most `limit` threads inside the ``with`` block, in the whole process.

    Results do not depend on it. Without a limit the number is OpenMP's, hence
    ``OMP_NUM_THREADS``, threadpoolctl and ``torch.set_num_threads`` apply. Threads
    that wait for others spin, which is slow where other processes want the cores:
    ``OMP_WAIT_POLICY=PASSIVE``, set before the package is imported, lets them sleep.

    Parameters
    ----------
    limit : int
        1 to 4096, or 0 for none.

    Raises
    ------
    ArgumentError
        `limit` is none of these.
    """
    check_whole(0, limit=limit)
    previous = _core.set_thread_limit(limit)
    try:
        yield
    finally:
        _core.set_thread_limit(previous)
