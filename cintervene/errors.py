# SPDX-License-Identifier: Apache-2.0
"""Exceptions of the package; all derive from :class:`CinterveneError`."""

import numpy as np

__all__ = [
    "ArgumentError",
    "CinterveneError",
    "DtypeError",
    "InterventionError",
    "ModelError",
    "NonFiniteError",
    "RankError",
    "SingularSystemError",
]


class CinterveneError(Exception):
    """Base of every exception that the package raises on purpose."""


class ArgumentError(CinterveneError, ValueError):
    """An argument has a value, shape or place in memory that cannot be used."""


class DtypeError(CinterveneError, TypeError):
    """An argument has a type, or an array an element type, that cannot be used."""


class NonFiniteError(ArgumentError):
    """An input holds NaN or infinity; the message names the first such element."""


class SingularSystemError(CinterveneError, np.linalg.LinAlgError):
    """A linear system has no unique solution to working precision."""


class ModelError(CinterveneError, RuntimeError):
    """A model is unsupported, ambiguous, missing or corrupt."""


class InterventionError(CinterveneError, RuntimeError):
    """An intervention does not belong here: wrong base, applied twice, no change."""


class RankError(CinterveneError, RuntimeError):
    """A process that shares the work ended, was silent for too long, or went astray."""
