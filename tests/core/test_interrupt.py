# SPDX-License-Identifier: Apache-2.0
"""What Ctrl-C leaves behind: an object is what it was before the call or after it."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from support.interrupts import interrupt_after

import cintervene as ci

rng = np.random.default_rng(0)


class Moments:
    """A chunk that takes some tenths of a second to add."""

    chunk = rng.normal(size=(1300, 1000))

    def __init__(self) -> None:
        self.moments = ci.BenignMoments(1000).add(self.chunk[:40])

    def call(self) -> None:
        self.moments.add(self.chunk)

    def state(self) -> list[bytes]:
        gram = self.moments.preserve().gram(self.chunk[:3])
        return [gram.tobytes(), repr(self.moments.count).encode()]


class MomentsInPlace(Moments):
    """The same without a second sum, of which a part may be all that is added."""

    refused = b"refused"

    def __init__(self) -> None:
        self.moments = ci.BenignMoments(1000, in_place=True).add(self.chunk)

    def state(self) -> list[bytes]:
        try:
            return super().state()
        except ci.ArgumentError:
            with pytest.raises(ci.ArgumentError, match="was interrupted"):
                self.moments.add(self.chunk)
            return [self.refused]


class Descent:
    """A step whose product with the Gram matrix takes some tenths of a second."""

    gradient = rng.normal(size=(900, 700))
    inputs = rng.normal(size=(900, 20))

    def __init__(self) -> None:
        self.descent = ci.ProjectedGradient(self.inputs, 1.0, momentum=True)
        self.descent.step(self.gradient, 3.0)

    def call(self) -> None:
        self.descent.step(self.gradient[::-1], 4.0)

    def state(self) -> list[bytes]:
        here = self.descent
        numbers = repr((here.last, here.norm, here.best_loss)).encode()
        return [numbers, here.displacements.tobytes(), here.coefficients.tobytes()]


class Weights:
    """Weights changed in place."""

    update = ci.LowRankUpdate(
        rng.normal(size=(1500, 2400)).astype(np.float32),
        rng.normal(size=(2400, 1500)).astype(np.float32),
    )

    def __init__(self) -> None:
        self.weights = np.zeros((1500, 1500), np.float32)

    def call(self) -> None:
        self.update.apply(self.weights)

    def state(self) -> list[bytes]:
        return [self.weights.tobytes()]


class BriefWeights(Weights):
    """A change of weights that takes too little time to be interrupted."""

    update = ci.LowRankUpdate(
        rng.normal(size=(1500, 64)).astype(np.float32),
        rng.normal(size=(64, 1500)).astype(np.float32),
    )


def seconds_of(kind: Callable[[], Moments | Descent | Weights]) -> float:
    """How long a call takes: the least of three, for others may have the processor."""
    found = []
    for _ in range(3):
        object_ = kind()
        start = time.monotonic()
        object_.call()
        found.append(time.monotonic() - start)
    return min(found)


KINDS = [Moments, MomentsInPlace, Descent, Weights, BriefWeights]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_call_happened_or_did_not(kind, cases, counted):
    number = cases(24, 200)
    done = kind()
    with ci.thread_limit(1):
        duration = seconds_of(kind)
        done.call()
        after = done.state()
        before = kind().state()
        assert after != before
        found = []
        for i in range(number):
            object_ = kind()
            with (
                pytest.raises(KeyboardInterrupt),
                interrupt_after(duration * (i + 0.5) / number),
            ):
                object_.call()
            found.append(object_.state())
    known = [before, after]
    if kind is MomentsInPlace:
        # Or the object says that it is of no use.
        known.append([kind.refused])
        assert known[-1] in found
    elif kind is not BriefWeights:
        assert before in found
    assert all(state in known for state in found)
    counted("calls interrupted on the way", number)


@pytest.mark.parametrize("kind", [Moments, Descent])
def test_an_interrupted_object_goes_on(kind):
    done = kind()
    object_ = kind()
    with ci.thread_limit(1):
        done.call()
        with (
            pytest.raises(KeyboardInterrupt),
            interrupt_after(seconds_of(kind) / 3),
        ):
            object_.call()
        if object_.state() != done.state():
            object_.call()
    assert object_.state() == done.state()
