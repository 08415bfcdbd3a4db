# SPDX-License-Identifier: Apache-2.0
"""Safer open-weight language models by the smallest possible change of weights."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cintervene.errors import (
    ArgumentError,
    CinterveneError,
    DtypeError,
    InterventionError,
    ModelError,
    NonFiniteError,
    RankError,
    SingularSystemError,
)
from cintervene.solvers.certify import Certificate, certify
from cintervene.solvers.linear_head import RegionSolution, arr, tsr
from cintervene.solvers.losses import set_nll
from cintervene.solvers.pcr import pcr
from cintervene.solvers.preserve import BenignMoments, Preserve
from cintervene.solvers.projected_gradient import GradientStep, ProjectedGradient
from cintervene.solvers.projections import project_ball, project_simplex
from cintervene.solvers.solution import Solution, Status
from cintervene.solvers.update import LowRankUpdate, displacement
from cintervene.utils.progress_bar import ProgressBar
from cintervene.utils.ranks import joined
from cintervene.utils.runtime import show_config, thread_limit
from cintervene.version import __version__

if TYPE_CHECKING:
    from cintervene import attacks, baselines, data, evaluate, export, models, serve
    from cintervene.export import compare
    from cintervene.intervention.intervention import Intervention
    from cintervene.methods.arr.config import ARRConfig
    from cintervene.methods.defend import defend
    from cintervene.methods.gate.config import GateConfig
    from cintervene.methods.guard.config import GuardConfig
    from cintervene.methods.guard.method import Guard
    from cintervene.methods.pcr.config import PCRConfig
    from cintervene.methods.plan.plan import plan
    from cintervene.methods.tsr.config import TSRConfig
    from cintervene.prompts.calibration_size import CalibrationSize
    from cintervene.study.sweeps.run import sweep

__all__ = [
    "ARRConfig",
    "ArgumentError",
    "BenignMoments",
    "CalibrationSize",
    "Certificate",
    "CinterveneError",
    "DtypeError",
    "GateConfig",
    "GradientStep",
    "Guard",
    "GuardConfig",
    "Intervention",
    "InterventionError",
    "LowRankUpdate",
    "ModelError",
    "NonFiniteError",
    "PCRConfig",
    "Preserve",
    "ProgressBar",
    "ProjectedGradient",
    "RankError",
    "RegionSolution",
    "SingularSystemError",
    "Solution",
    "Status",
    "TSRConfig",
    "__version__",
    "arr",
    "attacks",
    "baselines",
    "certify",
    "compare",
    "data",
    "defend",
    "displacement",
    "evaluate",
    "export",
    "joined",
    "models",
    "pcr",
    "plan",
    "project_ball",
    "project_simplex",
    "serve",
    "set_nll",
    "show_config",
    "sweep",
    "thread_limit",
    "tsr",
]

_MODULES = (
    "attacks", "baselines", "data", "evaluate", "export", "models", "serve",
)  # fmt: skip
_PLACES = {
    "ARRConfig": "methods.arr.config",
    "CalibrationSize": "prompts.calibration_size",
    "GateConfig": "methods.gate.config",
    "Guard": "methods.guard.method",
    "GuardConfig": "methods.guard.config",
    "PCRConfig": "methods.pcr.config",
    "TSRConfig": "methods.tsr.config",
    "Intervention": "intervention.intervention",
    "compare": "export",
    "defend": "methods.defend",
    "plan": "methods.plan.plan",
    "sweep": "study.sweeps.run",
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
