# SPDX-License-Identifier: Apache-2.0
"""The iteration of civ_tsr on the change (vocab, d_in) itself, with no Gram matrix."""

import numpy as np

from support import reference


class FullMatrixTsr:
    def __init__(self, inputs, logits, sets, radius, metric):
        self.inputs, self.logits, self.sets = inputs, logits, sets
        self.radius, self.metric = radius, metric
        gram = inputs @ np.linalg.solve(metric, inputs.T)
        self.step = self.shortest = 2.0 / np.abs(gram).sum(axis=1).max()
        self.age = 1.0
        self.settled = False
        self.here = self.trail = np.zeros((logits.shape[1], inputs.shape[1]))

    def inner(self, a, b):
        return np.sum((a @ self.metric) * b)

    def project(self, change):
        size = np.sqrt(self.inner(change, change))
        return change * (self.radius / size) if size > self.radius else change

    def loss(self, change):
        loss, grad = reference.set_nll(self.logits + self.inputs @ change.T, self.sets)
        return loss.sum(), grad.T @ self.inputs

    def search(self, loss, gradient, descent):
        first = True
        while True:
            moved = self.project(self.here - self.step * descent)
            away = moved - self.here
            model = loss + np.sum(gradient * away)
            model += 0.5 * self.inner(away, away) / self.step
            if self.loss(moved)[0] <= model + 16 * 2.0**-52 * (loss + len(self.logits)):
                self.step *= 1.5 if first else 1.0
                return moved
            self.step *= 0.5
            first = False

    def advance(self):
        loss, gradient = self.loss(self.here)
        descent = np.linalg.solve(self.metric, gradient.T).T
        most = self.radius * np.sqrt(np.sum(gradient * descent))
        # Where only rounding is left of the stationarity, no loss decides any more.
        self.settled |= np.sum(gradient * self.here) + most <= 16 * 2.0**-52 * most
        if self.settled:
            moved = self.project(self.here - self.shortest * descent)
        else:
            moved = self.search(loss, gradient, descent)
        away = moved - self.here
        self.last_move = np.sqrt(self.inner(away, away))
        if self.settled:
            self.here = self.trail = moved
            return
        ahead = moved - self.trail
        older = (1 + np.sqrt(1 + 4 * self.age**2)) / 2
        momentum, self.age = (self.age - 1) / older, older
        if self.inner(self.here - moved, ahead) > 0:
            momentum, self.age = 0.0, 1.0
        self.here, self.trail = self.project(moved + momentum * ahead), moved

    def polish(self, change, steps=200):
        """Plain projected gradient from there: no loss decides, so none rounds."""
        for _ in range(steps):
            gradient = self.loss(change)[1]
            descent = np.linalg.solve(self.metric, gradient.T).T
            change = self.project(change - self.shortest * descent)
        return change
