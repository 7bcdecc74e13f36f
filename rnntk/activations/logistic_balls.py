"""Moments of tanh, sigmoid, softplus and silu with proved errors, in balls of python-flint.

With g = tanh' = sech^2 and h_k the orthonormal Hermite polynomials, the Fourier integral of g gives
G_k = |E g(sqrt(a) z) h_k(z)| as an integral of positive numbers, of which the trapezoidal rule
makes balls. All moments are Mehler sums of them, whose tails Parseval's equation bounds.
docs/theory/activations.md has the theorem and its proof; names are those of that page.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rnntk.activations.activation import Ball, BallMoments

BLOCK = 16  # even orders that are computed together
BLOCKS = 256  # after which the tail is only bounded
_GUARD = 16  # binary digits that coefficients have more than moments


class Coefficients:
    """G_k at one variance, for as many even k as were asked for.

    Attributes:
        root: square root of the variance.
        found: the balls, of k = 0, 2, 4, ...
        square: E g^2.
        left: what the orders behind each block have of it.
    """

    def __init__(self, flint: Any, variance: Ball, goal: int) -> None:
        """Of an exact variance above 0, to about ``goal`` binary digits."""
        arb, a = flint.arb, float(variance)
        exponent = goal * math.log(2) + 8
        self.arb, self.root = arb, variance.sqrt()
        step = 2 * math.pi * a**0.5 / (exponent + a) if a < exponent else math.pi / exponent**0.5
        height = min(a**0.5, math.pi / step) * (1 - 1e-9)  # of the strip
        self.step = arb(step)
        self.radius = math.sqrt(2 * (exponent + max(0.0, -math.log(a) / 2)))  # of nodes in use
        self.end = 2 / math.pi * a**0.5 * (exponent + math.log(exponent))  # where S is nil
        tall = arb(height)
        assert tall**2 <= variance
        self.error = 3.5 * (tall**2).exp() / ((2 * arb.pi() * tall / self.step).exp() - 1)
        self.first, self.terms = 1, list[Ball]()
        self.found, self.left = list[Ball](), list[Ball]()
        self.extend()
        self.square = (4 * self.found[0] + arb(2).sqrt() * self.found[1] / variance) / 6
        self.left.append(self.square - self._squares())

    def extend(self) -> None:
        """One block more."""
        arb, k, step = self.arb, 2 * len(self.found), float(self.step)
        top = k + 2 * BLOCK
        low = max(1, math.floor((k**0.5 - self.radius) / step))
        high = math.ceil(min(top**0.5 + self.radius, self.end) / step)
        del self.terms[: low - self.first]
        self.first = low
        size = arb(k + 1).lgamma() / 2
        for j in range(low + len(self.terms), high + 1):
            y = j * self.step
            q = arb.pi() * y / (2 * self.root)
            power = k * y.log() if k else 0
            self.terms.append(2 / arb.pi() * (q / q.sinh()) * (power - y**2 / 2 - size).exp())
        squares = [(j * self.step) ** 2 for j in range(low, low + len(self.terms))]
        scale = self.step / self.root
        error = arb(0, (self.error + self._left_out(top, low + len(self.terms) - 1)).abs_upper())
        for order in range(k, top, 2):
            total = sum(self.terms, 0 if order else 1 / arb.pi())
            self.found.append(scale * total + error)
            self.terms = [v * s for v, s in zip(self.terms, squares, strict=True)]
            scale /= (arb(order + 1) * (order + 2)).sqrt()
        ratio = scale * self.root / self.step
        self.terms = [v * ratio for v in self.terms]
        if self.left:
            self.left.append(self.left[-1] - self._squares())

    def _squares(self) -> Ball:
        return sum((v * v for v in self.found[-BLOCK:]), self.arb(0))

    def _left_out(self, top: int, high: int) -> Ball:
        """What the nodes below and above a block's would add to any of its numbers."""
        arb, r = self.arb, self.arb(self.radius - 1e-6)
        side = (self.step + 1 / r) * (-(r**2) / 2).exp() / self.root
        if high * float(self.step) >= top**0.5 + self.radius - 1e-9:
            return 2 * side
        q = arb.pi() * high * self.step / (2 * self.root)
        assert q > 1
        return side + (q + 1) * (-q).exp()


class Softplus:
    """E softplus and E softplus^2 by the trapezoidal rule; logarithms are kept."""

    def __init__(self, flint: Any) -> None:
        """With nothing known yet."""
        self.arb = flint.arb
        self.known: dict[tuple[int, float], list[Ball]] = {}

    def __call__(self, a: Ball, goal: int, bits: int) -> tuple[Ball, Ball]:
        """At an exact variance above 0, to about ``goal`` binary digits."""
        arb, size = self.arb, float(a)
        exponent = goal * math.log(2) + 8 + 2 * math.log(3 + size**0.5)
        wide = math.pi**2 / (exponent + math.pi**2 / (8 * size))
        narrow = math.pi * (2 * size / exponent) ** 0.5
        step = 2.0 ** math.floor(math.log2(wide if wide <= 4 * size else narrow))
        height = arb(min(math.pi / 2, 2 * math.pi * size / step) * (1 - 1e-9))
        root, count = a.sqrt(), math.ceil((2 * size * (exponent + 3)) ** 0.5 / step)
        strip = (2 * arb.pi() * height / step).exp() - 1
        error = 2 * (3 + root) ** 2 * (height**2 / (2 * a)).exp() / strip
        reach = count * step / root
        assert reach > 2
        error += 2 * (1 + root) ** 2 * (reach + 1) * (-(reach**2) / 2).exp()
        logs = self.known.setdefault((bits, step), [])
        logs += [(-j * arb(step)).exp().log1p() for j in range(len(logs), count + 1)]
        ratio, factor = (-(arb(step) ** 2) / (2 * a)).exp(), (-(arb(step) ** 2) / a).exp()
        weight, mean, square = arb(1), logs[0], logs[0] ** 2
        for j in range(1, count + 1):
            u, log = j * arb(step), logs[j]
            weight, ratio = weight * ratio, ratio * factor
            mean += weight * (u + 2 * log)
            square += weight * ((u + log) ** 2 + log**2)
        scale, ball = step / (root * (2 * arb.pi()).sqrt()), arb(0, error.abs_upper())
        return scale * mean + ball, scale * square + ball


class Still:
    """:class:`Coefficients` at variance 0."""

    def __init__(self, flint: Any) -> None:
        """All of g is in order 0."""
        arb = flint.arb
        self.root, self.square = arb(0), arb(1)
        self.found = [arb(1)] + [arb(0)] * (BLOCK * BLOCKS - 1)
        self.left = [arb(0)] * BLOCKS

    def extend(self) -> None:
        """There are no more."""


class One(NamedTuple):
    """What is known of one exact variance.

    Attributes:
        a: the variance.
        G: coefficients of g, at a for tanh, else at a/4.
        means: E softplus and E softplus^2.
        P: G_k - G_(k-2) sqrt(k / (k-1)), for silu.
        left: what the orders behind each block have of the sum of k P_k^2.
    """

    a: Ball
    G: Coefficients | Still
    means: tuple[Ball, Ball] | None
    P: list[Ball]
    left: list[Ball]


class Logistic:
    """The moments of one of the four, at exact variances and a correlation."""

    def __init__(self, flint: Any, name: str) -> None:
        """With nothing known yet."""
        self.flint, self.name, self.softplus = flint, name, Softplus(flint)
        self.known: dict[tuple[Any, ...], One] = {}

    def at(self, a: Ball) -> One:
        """What is known of an exact variance."""
        bits = int(self.flint.ctx.prec)
        key = bits, *a.man_exp()
        if key not in self.known:
            goal, means = _goal(bits) + _GUARD, None
            if self.name == "softplus":
                log2 = self.flint.arb(2).log()
                means = self.softplus(a, goal, bits) if a > 0 else (log2, log2**2)
            scaled = a if self.name == "tanh" else a / 4
            G = Coefficients(self.flint, scaled, goal) if a > 0 else Still(self.flint)
            self.known[key] = One(a, G, means, [], [])
        return self.known[key]

    def own(self, one: One) -> tuple[Ball, Ball]:
        """E phi^2 and E phi'^2."""
        arb, (g0, g2, g4) = self.flint.arb, one.G.found[:3]
        if self.name == "tanh":
            return 1 - g0, one.G.square
        if self.name == "sigmoid":
            return (2 - g0) / 4, one.G.square / 16
        if self.name == "softplus":
            assert one.means is not None
            return one.means[1], (2 - g0) / 4
        root2, localized = arb(2).sqrt(), one.a * (g0 - arb(2).sqrt() * g2)
        slope = (7 * root2 * g2 - 6 * g0 + localized - arb(24).sqrt() * g4) / 24
        return one.a / 2 - localized / 4, arb(1) / 2 + slope

    def pair(self, one: One, two: One, c: Ball, rho: Ball) -> tuple[Ball, Ball]:
        """E phi phi' and E of the derivatives' product, at a covariance and a correlation."""
        blocks = self._blocks(one.G, two.G, rho)
        if self.name == "silu":
            return self._silu(one, two, c, rho, blocks)
        n, size = blocks * BLOCK, rho.abs_upper()
        products = [x * y for x, y in zip(one.G.found[:n], two.G.found[:n], strict=True)]
        tail = size ** (2 * n) * _root(one.G.left[blocks - 1], two.G.left[blocks - 1])

        def total(terms: Sequence[Ball], tail: Ball) -> Ball:
            """Of terms times rho^k, and what may be left."""
            return self._polynomial(terms, rho) + self.flint.arb(0, tail.abs_upper())

        divided = [v / (2 * i + 1) for i, v in enumerate(products)]
        scale = one.G.root * two.G.root
        tanh = scale * rho * total(divided, tail / (2 * n + 1))
        if self.name == "softplus":
            assert one.means is not None
            assert two.means is not None
            twice = [v / (2 * i + 2) for i, v in enumerate(divided)]
            smooth = total(twice, tail / ((2 * n + 1) * (2 * n + 2)))
            state = one.means[0] * two.means[0] + c / 4 + (scale * rho) ** 2 * smooth
            return state, (1 + tanh) / 4
        slope = total(products, tail)
        return (tanh, slope) if self.name == "tanh" else ((1 + tanh) / 4, slope / 16)

    def _silu(self, one: One, two: One, c: Ball, rho: Ball, blocks: int) -> tuple[Ball, Ball]:
        n, arb, size = blocks * BLOCK, self.flint.arb, rho.abs_upper()
        for side in (one, two):
            self._join(side, blocks)
        products = [x * y for x, y in zip(one.P[:n], two.P[:n], strict=True)]
        rest = _root(one.left[blocks - 1], two.left[blocks - 1])
        state = self._polynomial(products, rho)
        slope = rho * self._polynomial([2 * i * v for i, v in enumerate(products)][1:], rho)
        state += arb(0, (size ** (2 * n) * rest / (2 * n)).abs_upper())
        slope += arb(0, (size ** (2 * n - 1) * rest).abs_upper())
        scale = one.G.root * two.G.root
        return c / 4 + scale**2 * state, (1 + scale * slope) / 4

    def _join(self, one: One, blocks: int) -> None:
        """Neighbouring orders, as multiplication by u does, for some blocks."""
        arb = self.flint.arb
        while len(one.left) < blocks:
            first, G = len(one.P), one.G.found
            for i in range(first, first + BLOCK):
                factor = (arb(2 * i) / (2 * i - 1)).sqrt()
                one.P.append(G[i] - factor * G[i - 1] if i else G[0])
            added = sum((2 * i * one.P[i] ** 2 for i in range(first, first + BLOCK)), arb(0))
            if one.left:
                before = one.left[-1]
            elif one.a > 0:
                before = 16 * (self.own(one)[1] - arb(1) / 4) / one.a
            else:
                before = added
            one.left.append(before - added)

    def _blocks(self, one: Coefficients | Still, two: Coefficients | Still, rho: Ball) -> int:
        """How many make the tail small, if any number that is computed does."""
        size, accuracy, blocks = float(rho.abs_upper()), 2.0 ** -_goal(self.flint.ctx.prec), 1
        while True:
            for side in (one, two):
                if len(side.left) < blocks:
                    side.extend()
            left = float(_root(one.left[blocks - 1], two.left[blocks - 1]))
            if size ** (2 * blocks * BLOCK) * left < accuracy or blocks == BLOCKS:
                return blocks
            blocks += 1

    def _polynomial(self, terms: Sequence[Ball], rho: Ball) -> Ball:
        return self.flint.arb_poly(list(terms))(rho**2)


def _goal(bits: int) -> int:
    """Binary digits that moments shall have."""
    return 3 * bits // 4


def _root(one: Ball, two: Ball) -> Ball:
    """Root of the product of two numbers that are not negative, from above."""
    return (one.abs_upper() * two.abs_upper()).sqrt().abs_upper()


class _Bounds(NamedTuple):
    """On |phi(0)| and on the absolute values of the first three derivatives."""

    origin: float
    first: float
    second: float
    third: float


_BOUNDS = {
    "tanh": _Bounds(0.0, 1.0, 0.8, 2.0),
    "sigmoid": _Bounds(0.5, 0.25, 0.1, 0.125),
    "softplus": _Bounds(0.75, 1.0, 0.25, 0.1),
    "silu": _Bounds(0.0, 1.5, 1.0, 0.75),
}


def balls(name: str, flint: Any) -> BallMoments:
    """Moments of one of the four in balls.

    They are taken at midpoints; what the moments change by within the balls is added. Balls of
    coefficients would lose digits at every step of a recursion.
    """
    arb, known, bound = flint.arb, Logistic(flint, name), _BOUNDS[name]

    def exact(a: Ball) -> tuple[Ball, Ball]:
        """A number that may be a variance, and how far from it the ball reaches."""
        middle = a.mid() if a.mid() > 0 else arb(0)
        return middle, (a - middle).abs_upper()

    def size(a: Ball) -> Ball:
        """Of E |phi(u)|."""
        return bound.origin + bound.first * a.abs_upper().sqrt()

    def ball(value: Ball, radius: Ball) -> Ball:
        return value + arb(0, radius.abs_upper())

    def own(a: Ball) -> tuple[Ball, Ball]:
        middle, away = exact(a)
        state, slope = known.own(known.at(middle))
        change = arb(bound.second) ** 2 + bound.first * bound.third
        return (
            ball(state, (arb(bound.first) ** 2 + bound.second * size(a)) * away),
            ball(slope, change * away),
        )

    def pair(a1: Ball, a2: Ball, c: Ball) -> tuple[Ball, Ball]:
        (middle1, away1), (middle2, away2) = exact(a1), exact(a2)
        one, two = known.at(middle1), known.at(middle2)
        root, middle = (middle1 * middle2).sqrt(), c.mid()
        if root > abs(middle):
            rho = middle / root
        else:
            rho = arb(0 if root.is_zero() else 1 if middle > 0 else -1)
            middle = rho * root
        away = (c - middle).abs_upper()
        state, slope = known.pair(one, two, middle, rho)
        turned = bound.second * (size(a2) * away1 + size(a1) * away2) / 2
        bent = bound.first * bound.third * (away1 + away2) / 2
        return (
            ball(state, arb(bound.first) ** 2 * away + turned),
            ball(slope, arb(bound.second) ** 2 * away + bent),
        )

    return BallMoments(own, pair)
