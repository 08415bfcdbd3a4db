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
def as_float32(x: Any, /) -> npt.NDArray[np.float32]: ...
def as_float64(x: Any, /) -> npt.NDArray[np.float64]: ...
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
def project_ball(x: Any, radius: npt.NDArray[np.float64], out: Any, /) -> Any: ...
def project_simplex(x: Any, out: Any, /) -> Any: ...
def lowrank_apply(
    w: Any, left: npt.NDArray[Any], right: npt.NDArray[Any], out: Any, /
) -> Any: ...
def displacement(
    base: Any, changed: Any, inputs: Any, /
) -> npt.NDArray[np.float64]: ...
