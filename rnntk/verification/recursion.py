"""The exact kernel again, in intervals, from the definition of the network."""

from collections.abc import Iterator
from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
from tqdm import tqdm

from rnntk.verification.logistic import FACTS, Moments, as_fraction

Cells = dict[tuple[int, int], Any]


def kernel(
    network: dict[str, Any], tokens: list[np.ndarray], unit: Fraction, bits: int
) -> tuple[np.ndarray, Fraction, Fraction]:
    """Whole numbers, their unit, and a bound on their distance from the kernel (Frobenius)."""
    try:
        from mpmath import iv
    except ImportError as error:
        raise ImportError("verify of a kernel needs mpmath: pip install mpmath.") from error
    precision = iv.prec
    try:
        iv.prec = bits + 64
        entries = list(_entries(_Recursion(iv, network, unit, tokens[0].shape[1]), network, tokens))
    finally:
        iv.prec = precision
    size = 1 + max(p for p, _, _ in entries)
    ends = {(p, q): (as_fraction(v.a), as_fraction(v.b)) for p, q, v in entries}
    largest = max(max(abs(a), abs(b)) for a, b in ends.values())
    if not largest:
        return np.zeros((size, size), object), Fraction(1), Fraction(0)
    magnitude = largest.numerator.bit_length() - largest.denominator.bit_length()
    scale = Fraction(2) ** (bits + 64 - magnitude)
    middle, squares = np.zeros((size, size), object), 0
    for (p, q), (a, b) in ends.items():
        low, high = (a * scale).__floor__(), (b * scale).__ceil__()
        middle[p, q] = middle[q, p] = (low + high) // 2
        squares += 2 * (high - middle[p, q]) ** 2
    return middle, 1 / scale, (isqrt(squares) + 1) / scale


def _entries(
    recursion: "_Recursion", network: dict[str, Any], tokens: list[np.ndarray]
) -> Iterator[tuple[int, int, Any]]:
    """Lower triangle of the kernel as (row, column, interval)."""
    readout, both = network["readout"], network["bidirectional"]
    first = np.cumsum([0] + [len(x) for x in tokens]).tolist()
    for i in tqdm(range(len(tokens)), desc="kernel in interval arithmetic", delay=5):
        for j in range(i + 1):
            x, y = tokens[i], tokens[j]
            cells = recursion.cells(x, y, i == j)
            if both:
                for (s, r), value in recursion.cells(x[::-1], y[::-1], i == j).items():
                    last = readout == "last"
                    where = (s, r) if last else (len(x) - 1 - s, len(y) - 1 - r)
                    cells[where] = cells[where] + value
            if readout == "last":
                yield i, j, cells[len(x) - 1, len(y) - 1]
            elif readout == "mean":
                yield i, j, sum(cells.values()) / (len(x) * len(y))
            else:
                for (s, r), value in cells.items():
                    if first[i] + s >= first[j] + r:
                        yield first[i] + s, first[j] + r, value


class _Recursion:
    """The kernel's recursion in intervals, from the definition."""

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
