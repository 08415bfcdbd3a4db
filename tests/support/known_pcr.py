# SPDX-License-Identifier: Apache-2.0
"""Problems whose optimum is known exactly: closed forms, and a line to walk along."""

import numpy as np

KINDS = (
    "one_ball",
    "one_halfspace",
    "on_concept",
    "separate_prompts",
    "line",
    "far_ball",
    "halfspace_and_ball",
    "orthogonal_halfspaces",
    "slack",
    "tied_prompts",
)


def known(number):
    """Kind, the arguments of `pcr`, and the least cost."""
    rng = np.random.default_rng([11, number])
    kind = KINDS[number % len(KINDS)]
    return kind, *_MAKERS[kind](rng)


def _prompts(rng, m=1):
    """Orthogonal inputs, so that every prompt is a problem of its own."""
    d_in = m + int(rng.integers(0, 4))
    basis = np.linalg.qr(rng.standard_normal((d_in, d_in)))[0][:m]
    return basis * 10.0 ** rng.uniform(-3, 3, (m, 1))


def _square(rows):
    return np.sum(np.square(rows), axis=-1)


def _pushes(outputs, concepts, radius):
    return np.maximum(radius - np.linalg.norm(outputs - concepts, axis=1), 0.0)


def _one_ball(rng):
    d_out, size = int(rng.integers(1, 6)), 10.0 ** rng.uniform(-6, 6)
    inputs = _prompts(rng)
    outputs, concepts = size * rng.standard_normal((2, 1, d_out))
    radius = float(size * rng.choice([0.1, 1.0, 3.0, 10.0]))
    cost = _pushes(outputs, concepts, radius)[0] ** 2 / _square(inputs)[0]
    return _arguments(inputs, outputs, concepts, radius), cost


def _one_halfspace(rng):
    inputs, outputs = _prompts(rng), rng.standard_normal((1, int(rng.integers(1, 6))))
    direction = rng.standard_normal(outputs.shape) * 10.0 ** rng.uniform(-3, 3)
    level = float(outputs[0] @ direction[0])
    asked = float(rng.uniform(-1.0, 2.0)) * np.linalg.norm(direction)
    cost = max(asked, 0.0) ** 2 / _square(direction)[0] / _square(inputs)[0]
    arguments = _arguments(inputs, outputs, None, 1.0)
    return arguments | {"halfspaces": (direction, [level - asked])}, cost


def _on_concept(rng):
    inputs, d_out = _prompts(rng), int(rng.integers(1, 6))
    outputs = np.round(rng.standard_normal((1, d_out)), 1)
    radius = float(10.0 ** rng.uniform(-2, 2))
    concepts = np.repeat(outputs, int(rng.integers(1, 4)), axis=0)
    return _arguments(inputs, outputs, concepts, radius), radius**2 / _square(inputs)[0]


def _separate_prompts(rng):
    m, d_out = int(rng.integers(2, 5)), int(rng.integers(1, 6))
    inputs = _prompts(rng, m)
    outputs, concepts = rng.standard_normal((2, m, d_out))
    radius = np.diag(rng.uniform(0.1, 4.0, m))
    cost = _pushes(outputs, concepts, radius.diagonal()) ** 2 / _square(inputs)
    return _arguments(inputs, outputs, concepts, radius), cost.sum()


def _line(rng):
    """One output on a line of forbidden intervals: the nearer end of their union."""
    inputs, n = _prompts(rng), int(rng.integers(1, 7))
    outputs = np.round(rng.standard_normal((1, 1)), 2)
    concepts = np.round(2.0 * rng.standard_normal((n, 1)), 2)
    radius = np.round(rng.uniform(0.1, 2.0, (1, n)), 2)
    ends = np.concatenate([concepts[:, 0] - radius[0], concepts[:, 0] + radius[0]])
    places = np.append(ends, outputs)
    free = np.all(np.abs(places[:, None] - concepts[:, 0]) >= radius - 1e-12, axis=1)
    cost = np.min(np.square(places[free] - outputs[0, 0])) / _square(inputs)[0]
    return _arguments(inputs, outputs, concepts, radius), cost


def _far_ball(rng):
    """Two balls of which one is never met."""
    arguments, cost = _one_ball(rng)
    outputs, radius = arguments["outputs"], arguments["radius"]
    away = outputs - arguments["concepts"]
    length = np.linalg.norm(away)
    far = arguments["concepts"] - away / length * (2.0 * radius + 2.0 * length)
    concepts = np.concatenate([arguments["concepts"], far])
    return arguments | {"concepts": concepts}, cost


def _halfspace_and_ball(rng):
    """Both ask for the same direction: the one that asks for more decides."""
    arguments, _ = _one_ball(rng)
    outputs, radius = arguments["outputs"], arguments["radius"]
    away = outputs - arguments["concepts"]
    length = np.linalg.norm(away)
    asked = float(rng.uniform(0.0, 2.0)) * radius
    level = float(outputs[0] @ away[0]) / length
    arguments["halfspaces"] = -away / length, [-(level + asked)]
    push = max(radius - length, asked)
    return arguments, push**2 / _square(arguments["inputs"])[0]


def _orthogonal_halfspaces(rng):
    m, d_out = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    k = int(rng.integers(1, d_out + 1))
    inputs, outputs = _prompts(rng, m), rng.standard_normal((m, d_out))
    directions = np.linalg.qr(rng.standard_normal((d_out, d_out)))[0][:k]
    asked = rng.uniform(-1.0, 2.0, (m, k))
    cost = _square(np.maximum(asked, 0.0)) / _square(inputs)
    arguments = _arguments(inputs, outputs, None, 1.0)
    halfspaces = directions, outputs @ directions.T - asked
    return arguments | {"halfspaces": halfspaces}, cost.sum()


def _slack(rng):
    arguments, cost = _one_ball(rng)
    slack = float(10.0 ** rng.uniform(-3, 2))
    return arguments | {"slack": slack}, cost / (1.0 + slack)


def _tied_prompts(rng):
    """The same input twice: both outputs move alike, and the longer way is gone."""
    arguments, _ = _one_ball(rng)
    outputs, concepts = arguments["outputs"], arguments["concepts"]
    away = (outputs - concepts) * rng.uniform(0.2, 1.0)
    lengths = np.linalg.norm([outputs - concepts, away], axis=(1, 2))
    push = max(arguments["radius"] - lengths.min(), 0.0)
    arguments["inputs"] = np.repeat(arguments["inputs"], 2, axis=0)
    arguments["outputs"] = np.concatenate([outputs, concepts + away])
    return arguments, push**2 / _square(arguments["inputs"])[0]


def _arguments(inputs, outputs, concepts, radius):
    return {
        "inputs": inputs,
        "outputs": outputs,
        "concepts": concepts,
        "radius": radius,
    }


_MAKERS = {
    "one_ball": _one_ball,
    "one_halfspace": _one_halfspace,
    "on_concept": _on_concept,
    "separate_prompts": _separate_prompts,
    "line": _line,
    "far_ball": _far_ball,
    "halfspace_and_ball": _halfspace_and_ball,
    "orthogonal_halfspaces": _orthogonal_halfspaces,
    "slack": _slack,
    "tied_prompts": _tied_prompts,
}
