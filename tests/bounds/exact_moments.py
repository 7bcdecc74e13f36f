"""Moments of activations in mpmath, from their closed forms."""

import mpmath


def moments(name, a, b, c):
    """E phi(u) phi(u') and E phi'(u) phi'(u') for variances a, b and covariance c."""
    if name == "erf":
        state = 2 / mpmath.pi * mpmath.asin(2 * c / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b)))
        return state, 4 / mpmath.pi / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c * c)
    if name in ("sin", "cos"):
        fall = mpmath.exp(-(a + b) / 2)
        both = fall * mpmath.sinh(c), fall * mpmath.cosh(c)
        return both if name == "sin" else both[::-1]
    below = {"relu": 0, "abs": -1, "linear": 1, "leaky": mpmath.mpf(0.25)}[name]
    if a == 0 or b == 0:
        return mpmath.mpf(0), (1 + below) ** 2 / mpmath.mpf(4)
    scale = mpmath.sqrt(a * b)
    angle = mpmath.acos(max(-1, min(1, c / scale)))
    positive = (mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)) / (2 * mpmath.pi)
    negative = (mpmath.sin(angle) - angle * mpmath.cos(angle)) / (2 * mpmath.pi)
    share = (mpmath.pi - angle) / (2 * mpmath.pi)
    state = scale * ((1 + below**2) * positive - 2 * below * negative)
    return state, (1 + below**2) * share + 2 * below * (mpmath.mpf(1) / 2 - share)
