# SPDX-License-Identifier: Apache-2.0
from typing import Any, Literal, TypedDict, overload, type_check_only

import numpy as np
import numpy.typing as npt

@type_check_only
class _Config(TypedDict):
    cpu: str
    threads: int
    lapack: str

def config() -> _Config: ...
def set_thread_limit(limit: int, /) -> int: ...
def select_kernels(name: str, /) -> None: ...
def as_float32(x: Any, /) -> npt.NDArray[np.float32]: ...
def as_float64(x: Any, /) -> npt.NDArray[np.float64]: ...
def widen(x: Any, name: str, /) -> tuple[npt.NDArray[np.float64], float]: ...
def numbers(x: Any, name: str, /) -> npt.NDArray[np.float64]: ...
def plain(x: Any, name: str, /) -> npt.NDArray[Any]: ...
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
def project_simplex(x: Any, entropy: float, out: Any, /) -> Any: ...
def lowrank_apply(
    w: Any, left: npt.NDArray[Any], right: npt.NDArray[Any], out: Any, /
) -> Any: ...
def displacement(
    base: Any, changed: Any, inputs: Any, /
) -> npt.NDArray[np.float64]: ...

_Floats = npt.NDArray[np.float64]

@type_check_only
class Found(TypedDict):
    coefficients: _Floats
    multipliers: _Floats
    displacements: _Floats
    margins: _Floats
    history: _Floats
    outcome: int
    iterations: int
    history_rows: int
    unit: float
    violation: float

@type_check_only
class Certificate(TypedDict):
    cost: float
    lower_bound: float
    stationarity: float
    complementarity: float
    shrink: float

def product_nt(a: Any, b: Any, /) -> _Floats: ...
def gram(a: Any, b: Any, /) -> _Floats: ...
def product_nn(a: Any, b: Any, /) -> _Floats: ...
def moment_add(x: Any, out: _Floats, /) -> _Floats: ...
def spd_factor(a: _Floats, /) -> _Floats: ...
def spd_solve(factor: _Floats, b: _Floats, /) -> _Floats: ...
def check_finite(x: Any, name: str, /) -> None: ...
def pcr_most_violated(
    gram: _Floats,
    outputs: _Floats,
    concepts: _Floats,
    radius: _Floats,
    directions: _Floats,
    offsets: _Floats,
    tolerance: float,
    max_iterations: int,
    history_rows: int,
    /,
) -> Found: ...
def pcr_exact(
    gram: _Floats,
    outputs: _Floats,
    concepts: _Floats,
    radius: _Floats,
    directions: _Floats,
    offsets: _Floats,
    tolerance: float,
    max_iterations: int,
    history_rows: int,
    /,
) -> Found: ...
def pcr_certify(
    gram: _Floats,
    outputs: _Floats,
    concepts: _Floats,
    radius: _Floats,
    directions: _Floats,
    offsets: _Floats,
    coefficients: _Floats,
    multipliers: _Floats,
    /,
) -> Certificate: ...
def pcr_margins(
    moved: _Floats,
    outputs: _Floats,
    concepts: _Floats,
    radius: _Floats,
    directions: _Floats,
    offsets: _Floats,
    /,
) -> _Floats: ...
def outcomes() -> dict[str, tuple[int, str]]: ...

@type_check_only
class Step(TypedDict):
    step: float
    gradient_norm: float
    gap: float
    norm: float
    restarted: bool
    age: float

def pgd_step(
    gram: _Floats,
    gradient: Any,
    response: Any | None,
    here: _Floats,
    trail: _Floats | None,
    age: float,
    radius: float,
    step: float,
    length: float,
    /,
) -> Step: ...

@type_check_only
class Region(TypedDict):
    coefficients: npt.NDArray[Any]
    displacements: npt.NDArray[Any]
    losses: _Floats
    weights: _Floats
    history: _Floats
    outcome: int
    iterations: int
    history_rows: int
    loss: float
    stationarity: float
    bound: float
    norm: float

def tsr(
    gram: _Floats,
    logits: Any,
    ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    radius: float,
    tolerance: float,
    max_iterations: int,
    history_rows: int,
    /,
) -> Region: ...
def arr(
    gram: _Floats,
    logits: Any,
    ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    radius: float,
    tolerance: float,
    max_iterations: int,
    history_rows: int,
    /,
) -> Region: ...
