# SPDX-License-Identifier: Apache-2.0
"""Safer open-weight language models by the smallest possible change of weights."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cintervene.certify import Certificate, certify
from cintervene.config import show_config, thread_limit
from cintervene.errors import (
    ArgumentError,
    CinterveneError,
    DtypeError,
    InterventionError,
    ModelError,
    NonFiniteError,
    SingularSystemError,
)
from cintervene.losses import set_nll
from cintervene.preserve import BenignMoments, Preserve
from cintervene.projected_gradient import GradientStep, ProjectedGradient
from cintervene.projections import project_ball, project_simplex
from cintervene.safe_region import RegionSolution, arr, tsr
from cintervene.solution import Solution, Status
from cintervene.solve import pcr
from cintervene.update import LowRankUpdate, displacement

if TYPE_CHECKING:
    from cintervene import data, evaluate, export, models
    from cintervene.export import compare
    from cintervene.models import Guard, Intervention, defend

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BenignMoments",
    "Certificate",
    "CinterveneError",
    "DtypeError",
    "GradientStep",
    "Guard",
    "Intervention",
    "InterventionError",
    "LowRankUpdate",
    "ModelError",
    "NonFiniteError",
    "Preserve",
    "ProjectedGradient",
    "RegionSolution",
    "SingularSystemError",
    "Solution",
    "Status",
    "arr",
    "certify",
    "compare",
    "data",
    "defend",
    "displacement",
    "evaluate",
    "export",
    "models",
    "pcr",
    "project_ball",
    "project_simplex",
    "set_nll",
    "show_config",
    "thread_limit",
    "tsr",
]

_MODULES = ("data", "evaluate", "export", "models")
_PLACES = {
    "Guard": "models",
    "Intervention": "models",
    "compare": "export",
    "defend": "models",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name in _MODULES:
        return import_module(f"cintervene.{name}")
    if name in _PLACES:
        return getattr(import_module(f"cintervene.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'cintervene' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
