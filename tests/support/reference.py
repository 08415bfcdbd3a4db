# SPDX-License-Identifier: Apache-2.0
"""NumPy oracles: the formulas, in float64, with no thought for speed."""

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def set_nll(logits, sets):
    """Loss and gradient; one set of tokens for each row."""
    p = softmax(np.asarray(logits, dtype=np.float64))
    loss = np.empty(len(p))
    grad = p.copy()
    for i, ids in enumerate(sets):
        ids = np.unique(ids)
        total = p[i, ids].sum()
        loss[i] = -np.log(total)
        grad[i, ids] -= p[i, ids] / total
    return loss, grad


def project_ball(x, radius):
    x = np.asarray(x, dtype=np.float64)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return x * np.minimum(1.0, radius / np.where(norm == 0, 1.0, norm))


def project_simplex(x):
    """Projection by sorting."""
    x = np.asarray(x, dtype=np.float64)
    x = x - x.max(-1, keepdims=True)
    ordered = -np.sort(-x, axis=-1)
    excess = np.cumsum(ordered, axis=-1) - 1
    count = np.arange(1, x.shape[-1] + 1)
    last = (ordered * count > excess).sum(-1, keepdims=True)
    threshold = np.take_along_axis(excess, last - 1, -1) / last
    return np.maximum(x - threshold, 0)


def project_simplex_entropy(x, entropy):
    """The nearest point among the candidates of every face of a small simplex."""
    least = 1.0 - entropy
    best, distance = None, np.inf
    for mask in range(1, 2 ** len(x)):
        support = [i for i in range(len(x)) if mask >> i & 1]
        for p in _candidates(x, support, least):
            away = np.sum((p - x) ** 2)
            if away < distance - 1e-14:
                best, distance = p, away
    return best, distance


def _candidates(x, support, least):
    """On a face: its centre, the point nearest to x, and that on the sphere."""
    k, part = len(support), x[support]
    tilt = part - part.mean()
    radius = np.sqrt(max(least - 1.0 / k, 0.0))
    if np.linalg.norm(tilt) < 1e-12:
        tilt = np.eye(k)[0] - 1.0 / k
    size = np.linalg.norm(tilt)
    steps = [0.0, 1.0] if size == 0 else [0.0, 1.0, radius / size]
    for step in steps:
        p = np.zeros(len(x))
        p[support] = 1.0 / k + step * tilt
        if p.min() >= -1e-15 and np.sum(p**2) >= least - 1e-12:
            yield np.maximum(p, 0.0)


def round_to(x, dtype):
    """Round to a NumPy or ml_dtypes type and back."""
    return np.asarray(x).astype(dtype).astype(np.float64)
