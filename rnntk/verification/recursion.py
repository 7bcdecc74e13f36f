"""The kernel's recursion over pairs of sequences in mpmath's intervals, from the definition."""

from fractions import Fraction
from typing import Any

import numpy as np

from rnntk.verification.logistic import FACTS, Moments

Cells = dict[tuple[int, int], Any]


class Recursion:
    """One network, and one unit of its tokens."""

    def __init__(self, iv: Any, network: dict[str, Any], unit: Fraction, d: int) -> None:
        self.iv, self.network, self.zero = iv, network, iv.mpf(0)
        names = ("w_std", "u_std", "b_std", "v_std", "initial_state_std")
        self.w2, self.u2, self.b2, self.v2, self.h2 = (iv.mpf(network[name]) ** 2 for name in names)
        share = unit**2 / d if network["input_scaling"] == "fan_in" else unit**2
        self.tokens = self.u2 * iv.mpf(share.numerator) / iv.mpf(share.denominator)
        self.trained = {g: int(g in network["trainable"]) for g in "WUbV"}
        smooth: dict[str, Any]
        smooth = {"erf": self._erf, "gelu": self._gelu, "sin": self._sin, "cos": self._cos}
        smooth |= {name: Moments(iv, name) for name in FACTS}
        self.moments = smooth.get(network["activation"], self._piecewise_linear)
        if "slopes" in network:
            below, above = (iv.mpf(slope) for slope in network["slopes"])
            self.p2, self.q2 = ((above + below) / 2) ** 2, ((above - below) / 2) ** 2
        self.known: dict[tuple[Any, ...], list[list[Any]]] = {}

    def cells(self, x: np.ndarray, y: np.ndarray, same: bool) -> Cells:
        """v^2 (K + B) of the top layer at the cells that the readout sees."""
        last, depth = self.network["readout"] == "last", self.network["depth"]
        shared = same or self.network["initial_state"] == "shared"
        starts = [(s, 0) for s in range(len(x))] + [(0, s) for s in range(1, len(y))]
        if last:
            steps = min(len(x), len(y))
            starts = [(len(x) - steps, len(y) - steps)]
        one, two = self._variances(x), self._variances(y)
        result = {}
        for s, r in starts:
            begin = self.h2 if s == r == 0 and shared else self.zero
            states, backs = [begin] * depth, [self.zero] * depth
            while s < len(x) and r < len(y):
                token = self._token(x[s], y[r])
                self._step(states, backs, token, one[s], two[r], same and s == r)
                if not last or s == len(x) - 1:
                    result[s, r] = self.v2 * (self.trained["V"] * states[-1] + backs[-1])
                s, r = s + 1, r + 1
        return result

    def _token(self, x: np.ndarray, y: np.ndarray) -> Any:
        """u^2 <x, y>, the inner product in whole numbers."""
        return self.tokens * self.iv.mpf(int(x @ y))

    def _variances(self, x: np.ndarray) -> list[list[Any]]:
        """E u^2 at each step, by layer."""
        key = tuple(x.ravel()), len(x)
        if key not in self.known:
            states = [self.h2] * self.network["depth"]
            self.known[key] = []
            for token in x:
                drive, step = self._token(token, token), []
                for layer, state in enumerate(states):
                    step.append(self.w2 * state + drive + self.b2)
                    states[layer] = self.moments(step[-1], step[-1], step[-1])[0]
                    drive = self.u2 * states[layer]
                self.known[key].append(step)
        return self.known[key]

    def _step(
        self,
        states: list[Any],
        backs: list[Any],
        token: Any,
        one: list[Any],
        two: list[Any],
        same: bool,
    ) -> None:
        below = self.zero
        for layer in range(len(states)):
            recurrent, groups = self.w2 * states[layer], self.trained
            tangent = self.w2 * backs[layer] + below
            tangent += groups["W"] * recurrent + groups["U"] * token + groups["b"] * self.b2
            covariance = one[layer] if same else recurrent + token + self.b2
            states[layer], slope = self.moments(one[layer], two[layer], covariance)
            backs[layer] = slope * tangent
            token, below = self.u2 * states[layer], self.u2 * backs[layer]

    def _erf(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        iv = self.iv
        root = iv.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c * c)
        return 2 / iv.pi * iv.atan2(2 * c, root), 4 / (iv.pi * root)

    def _gelu(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """Of u P(v < u), v normal: by parts, from E P P' = 1/4 + asin(c / sqrt(pq)) / (2 pi)."""
        iv, p, q = self.iv, 1 + a, 1 + b
        det = 1 + 2 * a if a is b is c else p * q - c * c
        root = iv.sqrt(det)
        both = 1 / iv.mpf(4) + iv.atan2(c, root) / (2 * iv.pi)
        density = 1 / (2 * iv.pi * root)  # of both v - u and v' - u' at 0
        state = c * both + density * (a * b + c * c * (1 - a * b) / (p * q))
        return state, both + density * c * (1 / p + 1 / q + 1 / det)

    def _sin(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        near, far = self.iv.exp(c - (a + b) / 2) / 2, self.iv.exp(-c - (a + b) / 2) / 2
        return near - far, near + far

    def _cos(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        sines, cosines = self._sin(a, b, c)
        return cosines, sines

    def _piecewise_linear(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """Of p u + q |u|: p^2 c + q^2 E |u u'|, whose second mean has slopes from -1 to 1 in c.

        With r = sqrt(ab), half the angle is atan2(sqrt(r - c), sqrt(r + c)).
        """
        iv = self.iv
        if not a.b or not b.b:
            return self.zero, self.p2
        if a is b is c:
            return (self.p2 + self.q2) * c, self.p2 + self.q2
        r = iv.sqrt(a * b)

        def angle(covariance: Any) -> tuple[Any, Any]:
            """The sine, and pi/2 less the angle."""
            minus, plus = (self._root(r - covariance), self._root(r + covariance))
            return minus * plus, iv.pi / 2 - 2 * iv.atan2(minus, plus)

        middle = iv.mpf(c.mid)
        s, turn = angle(middle)
        size = 2 * (s + turn * middle) / iv.pi + iv.mpf([-1, 1]) * (c - middle)
        return self.p2 * c + self.q2 * size, self.p2 + self.q2 * 2 * angle(c)[1] / iv.pi

    def _root(self, v: Any) -> Any:
        """Root of what is known not to be negative."""
        return self.iv.sqrt(self.iv.mpf([max(v.a, 0), max(v.b, 0)]))
