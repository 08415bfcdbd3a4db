# SPDX-License-Identifier: Apache-2.0
from typing import Any, Literal, TypedDict, overload

import numpy as np
import numpy.typing as npt

class _Config(TypedDict):
    cpu: str
    threads: int
    lapack: str

def config() -> _Config: ...
def set_thread_limit(limit: int, /) -> int: ...
def select_kernels(name: str, /) -> None: ...
@overload
def set_nll(
    logits: Any,
    ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    grad: Literal[False],
    /,
) -> npt.NDArray[np.float64]: ...
@overload
def set_nll(
    logits: Any,
    ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    grad: Any,
    /,
) -> tuple[npt.NDArray[np.float64], Any]: ...
