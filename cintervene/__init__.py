# SPDX-License-Identifier: Apache-2.0
"""Safer open-weight language models by the smallest possible change of weights."""

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
from cintervene.projections import project_ball, project_simplex
from cintervene.solution import Solution, Status
from cintervene.solve import pcr
from cintervene.update import LowRankUpdate, displacement

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BenignMoments",
    "Certificate",
    "CinterveneError",
    "DtypeError",
    "InterventionError",
    "LowRankUpdate",
    "ModelError",
    "NonFiniteError",
    "Preserve",
    "SingularSystemError",
    "Solution",
    "Status",
    "certify",
    "displacement",
    "pcr",
    "project_ball",
    "project_simplex",
    "set_nll",
    "show_config",
    "thread_limit",
]
