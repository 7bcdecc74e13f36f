"""Moments of tanh, sigmoid, softplus and silu in intervals, by sums of whole numbers.

Variance and slope of one sequence, and its mean, come from the trapezoidal rule over u; those of
pairs from Mehler's formula, whose coefficients the Fourier integral of sech^2 gives, and whose tail
is what the sums of squares lack of the slope. docs/theory/activations.md proves the errors.
A number x stands as a whole number near x 2^P, P the precision; errors count in 2^-P.
"""

import math
from fractions import Fraction
from math import isqrt
from typing import Any, NamedTuple

_ORDERS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)  # numbers of coefficients to try
_SPREAD = 32  # digits for errors of factors that are multiplied again and again


class _One(NamedTuple):
    """Of one exact variance: intervals of E phi, E phi^2 and E phi'^2, and coefficients of phi'."""

    a: Any
    mean: Any
    state: Any
    slope: Any
    numbers: dict[int, "_Coefficients"]


class _Coefficients(NamedTuple):
    """Those that are not zero, with their orders; their error; the sum of the others' squares."""

    values: list[tuple[int, int]]
    error: int
    tail: int


class _Facts(NamedTuple):
    """What the proofs use: width/pi of the strip, |phi(0)|, bounds on the first three derivatives.

    In |Im u| <= strip pi phi and phi' are below 3 + |u|.
    """

    strip: float
    origin: float
    first: float
    second: float
    third: float


FACTS = {
    "tanh": _Facts(0.25, 0, 1, 0.8, 2),
    "sigmoid": _Facts(0.5, 0.5, 0.25, 0.1, 0.125),
    "softplus": _Facts(0.5, 0.75, 1, 0.25, 0.1),
    "silu": _Facts(0.5, 0, 1.5, 1, 0.75),
}


class Moments:
    """Of one activation, at the precision that intervals have now."""

    def __init__(self, iv: Any, name: str) -> None:
        """With nothing known yet."""
        self.iv, self.name, self.P = iv, name, int(iv.prec)
        self.one = 1 << self.P
        self.facts = FACTS[name]
        self.goal = 3 * (self.P - 64) // 4 + 16
        self.exponent = self.goal * math.log(2) + 8
        self.reach = math.sqrt(2 * self.exponent)
        self.known: dict[Any, _One] = {}
        self.grids: dict[float, list[tuple[list[int], int]]] = {}
        self.columns: dict[tuple[int, int], tuple[int, list[int], list[int]]] = {}

    def __call__(self, a: Any, b: Any, c: Any) -> tuple[Any, Any]:
        """E phi phi' and E of the derivatives' product at two variances and a covariance."""
        iv, (_, _, first, second, third) = self.iv, self.facts
        one, away1 = self._at(a)
        if a is b is c:
            change = second**2 + first * third
            return (
                one.state + self._ball((first**2 + second * self._size(a)) * away1),
                one.slope + self._ball(change * away1),
            )
        two, away2 = self._at(b)
        root = iv.sqrt(one.a * two.a)
        middle = iv.mpf(c.mid)
        if not root > 0:
            rho = iv.mpf(0)
        elif abs(middle).b < root.a:
            rho = middle / root
        else:
            rho = iv.mpf(1 if middle > 0 else -1)
        middle = rho * root
        away3 = self._far(c - middle)
        state, slope = self._mehler(one, two, rho, root)
        turned = second * (self._size(b) * away1 + self._size(a) * away2) / 2
        bent = first * third * (away1 + away2) / 2
        return (
            state + self._ball(first**2 * away3 + turned),
            slope + self._ball(second**2 * away3 + bent),
        )

    def _far(self, interval: Any) -> Any:
        return self.iv.mpf(abs(interval).b)

    def _ball(self, radius: Any) -> Any:
        return self.iv.mpf([-1, 1]) * radius

    def _size(self, a: Any) -> Any:
        """A bound on E |phi(u)|."""
        return self.facts.origin + self.facts.first * self.iv.sqrt(self.iv.mpf(a.b))

    def _at(self, a: Any) -> tuple[_One, Any]:
        """What is known at the middle of an interval, and how far the interval reaches from it."""
        iv = self.iv
        middle = iv.mpf(a.mid)
        if not middle > 0:
            middle = iv.mpf(0)
        key = middle.a
        if key not in self.known:
            moments = self._alone(middle) if middle > 0 else self._still()
            self.known[key] = _One(middle, *moments, {})
        return self.known[key], self._far(a - middle)

    # Whole numbers and intervals.

    def _whole(self, interval: Any) -> tuple[int, int]:
        """A whole number, and by how much it may be off."""
        low = math.floor(as_fraction(interval.a) * self.one)
        high = math.ceil(as_fraction(interval.b) * self.one)
        return (low + high) // 2, (high - low) // 2 + 1

    def _interval(self, number: int, error: int) -> Any:
        iv = self.iv
        return iv.mpf([iv.mpf(number - error).a, iv.mpf(number + error).b]) / self.one

    # One sequence.

    def _functions(self, u: Any) -> tuple[Any, Any]:
        """phi and phi' at u."""
        iv = self.iv
        if self.name == "tanh":
            x = iv.exp(-2 * abs(u))
            size = (1 - x) / (1 + x)
            return (size if u >= 0 else -size), 4 * x / (1 + x) ** 2
        x = iv.exp(-u)
        step = 1 / (1 + x)
        bump = x * step**2
        return {
            "sigmoid": (step, bump),
            "softplus": (u + iv.log(1 + x), step),
            "silu": (u * step, step + u * bump),
        }[self.name]

    def _still(self) -> tuple[Any, Any, Any]:
        value, slope = self._functions(self.iv.mpf(0))
        return value, value**2, slope**2

    def _alone(self, a: Any) -> tuple[Any, Any, Any]:
        """E phi, E phi^2 and E phi'^2 by the trapezoidal rule over u."""
        iv, size = self.iv, float(a.mid)
        exponent = self.exponent + 2 * math.log(3 + size**0.5)
        width = self.facts.strip * math.pi
        step = 2 * math.pi * width / (exponent + width**2 / (2 * size))
        if width * step > 2 * math.pi * size:
            step = math.pi * (2 * size / exponent) ** 0.5
        step = 2.0 ** math.floor(math.log2(step))
        height = iv.mpf(min(width, 2 * math.pi * size / step) * (1 - 1e-9))
        root, count = iv.sqrt(a), math.ceil((2 * size * (exponent + 3)) ** 0.5 / step)
        error = 2 * (3 + root) ** 2 * iv.exp(height**2 / (2 * a))
        error = error / (iv.exp(2 * iv.pi * height / step) - 1)
        reach = count * iv.mpf(step) / root
        assert reach > 2
        error += 2 * (1 + root) ** 2 * (reach + 1) * iv.exp(-(reach**2) / 2)
        ratio, factor = (self._whole(iv.exp(-(iv.mpf(step) ** 2) / (k * a)))[0] for k in (2, 1))
        weight, sums, off = self.one, [0, 0, 0], 0
        for j, (values, loose) in enumerate(self._grid(step, count)):
            if j:
                weight, ratio = weight * ratio >> self.P, ratio * factor >> self.P
            sums = [total + weight * v for total, v in zip(sums, values, strict=True)]
            # weights are off by 3 (j + 1)^2 at most
            off += loose + 3 * (j + 1) ** 2 * ((max(map(abs, values)) >> self.P) + 1)
        scale = step / (root * iv.sqrt(2 * iv.pi))
        mean, state, slope = (
            scale * self._interval(total >> self.P, off + 1) + self._ball(error) for total in sums
        )
        return mean, state, slope

    def _grid(self, step: float, count: int) -> list[tuple[list[int], int]]:
        """phi, phi^2 and phi'^2 at +-j times the step, added up, and their error."""
        known = self.grids.setdefault(step, [])
        for j in range(len(known), count + 1):
            u, sums = self.iv.mpf(j * step), [self.iv.mpf(0)] * 3
            for value, slope in map(self._functions, (u, -u) if j else (u,)):
                added = value, value**2, slope**2
                sums = [total + v for total, v in zip(sums, added, strict=True)]
            both = [self._whole(total) for total in sums]
            known.append(([v for v, _ in both], max(error for _, error in both)))
        return known[: count + 1]

    # Pairs.

    def _mehler(self, one: _One, two: _One, rho: Any, root: Any) -> tuple[Any, Any]:
        iv, (number, off) = self.iv, self._whole(rho)
        size = min(float(self._far(rho).b), 1.0)
        for end in _ORDERS:
            first, second = (self._coefficients(side, end) for side in (one, two))
            tail = isqrt(first.tail * second.tail) + 1
            if size**end * (tail / self.one) < 2.0**-self.goal:
                break
        square, power, at = number * number >> self.P, self.one, 0
        slope = state = 0
        for (k, d1), (_, d2) in zip(first.values, second.values, strict=True):
            while at < k:  # orders go in twos but for the lowest
                jump = min(2, k - at)
                power, at = power * (square if jump == 2 else number) >> self.P, at + jump
            term = (d1 * d2 >> self.P) * power >> self.P
            slope, state = slope + term, state + term // (k + 1)
        # coefficients are at most 2, and powers off by 2 (k + 1) (off + 1)
        count = len(first.values)
        error = count * (3 * (first.error + second.error) + 8 * (end + 1) * (off + 1) + 4)
        left = iv.mpf(size) ** end * self._interval(tail, 1)
        scale = rho * root
        return (
            one.mean * two.mean
            + scale * (self._interval(state, error) + self._ball(left / (end + 1))),
            self._interval(slope, error) + self._ball(left),
        )

    def _coefficients(self, one: _One, end: int) -> _Coefficients:
        """E phi'(sqrt(a) z) h_k(z), but for signs that pairs share."""
        if end not in one.numbers:
            values, error = self._slopes(one, end)
            slope, off = self._whole(one.slope)
            tail = slope - (sum(v * v for _, v in values) >> self.P)
            tail += off + 5 * len(values) * (error + 1)  # each is at most 2
            one.numbers[end] = _Coefficients(values, error, max(tail, 1))
        return one.numbers[end]

    def _slopes(self, one: _One, end: int) -> tuple[list[tuple[int, int]], int]:
        """Those of all orders below ``end``, and their error."""
        P, scale = self.P, 1 if self.name == "tanh" else 2
        root = self.iv.sqrt(one.a) / scale
        count = end // 2 + 1
        G, error = self._sech(root, count) if root > 0 else ([self.one] + [0] * end, 1)
        if self.name in ("tanh", "sigmoid"):
            return [(2 * i, G[i] // scale**2) for i in range(end // 2)], error + 1
        short, loose = self._whole(root)
        values, large = [(0, self.one // 2)], (short >> P) + 1
        if self.name == "softplus":
            for i in range(end // 2):
                factor = isqrt((1 << 2 * P) // (2 * i + 1))
                values.append((2 * i + 1, ((G[i] * short >> P) * factor >> P) // 2))
            return values, large * (error + 2) + loose + 3
        for m in range(2, end + 1, 2):
            joined = G[m // 2] - (G[m // 2 - 1] * isqrt((m << 2 * P) // (m - 1)) >> P)
            values.append((m - 1, ((joined * short >> P) * isqrt(m << 2 * P) >> P) // 2))
        return values, (isqrt(end) + 1) * (large * (3 * error + 6) + 2 * loose + 3)

    def _sech(self, root: Any, count: int) -> tuple[list[int], int]:
        """|E sech^2(root z) h_k(z)| for k = 0, 2, ..., 2 (count - 1), and their error."""
        iv, size, exponent = self.iv, float(root.mid), self.exponent
        step = 2 * math.pi * size / (exponent + size**2)
        if size**2 > exponent:
            step = math.pi / exponent**0.5
        s = math.ceil(-math.log2(step))
        step = iv.mpf(2) ** -s
        height = iv.mpf(min(size, math.pi * 2**s) * (1 - 1e-9))
        assert height <= root
        error = 3.5 * iv.exp(height**2) / (iv.exp(2 * iv.pi * height / step) - 1)
        wide = (2 * count) ** 0.5 + self.reach
        cut = 2 / math.pi * size * (exponent + math.log(exponent))
        nodes = math.ceil(min(wide, cut) * 2**s)
        if wide <= cut:
            r = iv.mpf(self.reach - 1e-6)
            error += (step + 1 / r) * iv.exp(-(r**2) / 2) / root
        else:
            q = iv.pi * nodes * step / (2 * root)
            assert q > 1
            error += (q + 1) * iv.exp(-q)
        spread, loose = [], 0
        for j in range(1, nodes + 1):
            q = iv.pi * j * step / (2 * root)
            x = iv.exp(-q)
            number, off = self._whole(4 * q * x / (iv.pi * (1 - x**2)))
            spread.append(number)
            loose = max(loose, off)
        columns = [self._column(s, j, count) for j in range(1, nodes + 1)]
        scale, off = self._whole(step / root)
        found = []
        for i in range(count):
            total = sum(v * column[i] for v, column in zip(spread, columns, strict=True)) >> self.P
            total += 0 if i else self._whole(1 / iv.pi)[0]
            found.append(total * scale >> self.P)
        known, extra = self._whole(self._far(error))
        rounding = nodes * (2 * count + 8 + loose) + nodes * off + 6
        return found, known + extra + rounding

    def _column(self, s: int, j: int, count: int) -> list[int]:
        """y^k exp(-y^2/2) / sqrt(k!) at y = j / 2^s for even k, to 2 ``count`` + 6."""
        iv, square = self.iv, Fraction(j * j, 4**s)
        if (s, j) not in self.columns:
            # digits that growth up to the largest of the numbers takes away
            guard = math.ceil(square / 2 / Fraction(693, 1000)) + 1
            precision = iv.prec
            try:
                iv.prec = self.P + guard + 16
                start = iv.exp(-iv.mpf(square.numerator) / (2 * square.denominator))
                number = math.floor(as_fraction(start.a) * (1 << self.P + guard))
            finally:
                iv.prec = precision
            self.columns[s, j] = guard, [number], [number >> guard]
        guard, state, values = self.columns[s, j]
        Q = self.P + _SPREAD
        for i in range(len(values), count):
            inverse = isqrt((1 << 2 * Q) // ((2 * i - 1) * (2 * i)))
            state[0] = state[0] * j * j * inverse >> 2 * s + Q
            values.append(state[0] >> guard)
        return values


def as_fraction(end: Any) -> Fraction:
    """An end of an interval, which is an interval of one number, exactly."""
    sign, mantissa, exponent, _ = end._mpi_[0]
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent
