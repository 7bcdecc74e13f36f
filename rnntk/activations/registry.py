"""Activations and their Gaussian moments, the only thing that an infinite width sees of them.

For jointly Gaussian pre-activations (u, u') of variances a, a' the recursions need

- of one sequence, the variance ``E phi(u)^2`` and the slope ``E phi'(u)^2``, and
- of a pair, the *angles* of ``E phi(u) phi(u')`` and of the derivatives' moment, as functions of
  that of ``E u u'``. The angle of an entry M_ij of a kernel is 2 (sqrt(M_ii M_jj) - M_ij).

Angles rather than covariances: two nearly equal sequences differ in digits that the covariance has
already lost, and angles of sequences of unequal norm are no larger than their covariances. What
depends on one sequence alone is computed once a step (``marginal``, vectors of n) so that the part
over pairs is short. See docs/theory/infinite.md.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rnntk.activations import arcs, hermite
from rnntk.activations.hermite import safe_inverse, safe_sqrt

Marginal = Any  # a pytree of arrays whose last axis is that of the variances


@dataclass(frozen=True)
class Activation:
    """An elementwise nonlinearity with its Gaussian moments.

    Args:
        name: what messages and results call it.
        fn: the function itself, elementwise on JAX arrays.
        variance: maps variances a, shape (n,), to E phi(u)^2 with u ~ N(0, a).
        slope: maps variances a, shape (n,), to E phi'(u)^2; a number where that is constant.
        marginal: maps variances a, shape (n,), to whatever ``pair`` needs of one sequence, as
            arrays whose last axis has length n.
        pair: maps two marginals, whose last axes broadcast against each other as (n1, 1) and
            (1, n2), and the angle of E u u', shape (n1, n2), to the two moments' angles.
        homogeneous: phi(c u) = c phi(u) for all c > 0.
        error: maps variances to estimates of the moments' relative errors, on the host; None where
            the moments are closed forms.
    """

    name: str
    fn: Callable[[Array], Array]
    variance: Callable[[Float[Array, " n"]], Float[Array, " n"]]
    slope: float | Callable[[Float[Array, " n"]], Float[Array, " n"]]
    marginal: Callable[[Float[Array, " n"]], Marginal]
    pair: Callable[
        [Marginal, Marginal, Float[Array, "n1 n2"]],
        tuple[Float[Array, "n1 n2"], Float[Array, "n1 n2"]],
    ]
    homogeneous: bool = False
    error: Callable[[np.ndarray], np.ndarray] | None = None


def ends(phi: Activation) -> tuple[float, float]:
    """phi(1) and phi(-1), exactly, which is all there is to a homogeneous activation."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        above, below = (float(v) for v in phi.fn(jnp.asarray([1.0, -1.0])))
    return above, below


def parts(phi: Activation) -> tuple[float, float]:
    """(p, q) with phi(u) = p u + q |u|, for a homogeneous activation."""
    above, below = ends(phi)
    return (above - below) / 2, (above + below) / 2


def check_accuracy(activation: Activation, variances: np.ndarray) -> None:
    """Refuse variances at which the numerical moments of an activation are not accurate.

    The relative error of E phi(u) phi(u') and E phi'(u) phi'(u') may be 1e-8 in float64, and 1e-5
    in float32. It is estimated at no more than 64 of the variances, the largest among them.

    Raises:
        ValueError: naming the variance and the error.

    Example:
        >>> check_accuracy(resolve("tanh"), np.array([0.0, 1.0, 10.0]))
    """
    found = activation.error and hermite.find_inaccurate(activation.error, variances)
    if found:
        raise ValueError(
            f"The moments of {activation.name} at variance {found.variance:.4g} have an estimated "
            f"relative error of {found.error:.1e}, and {found.limit:.0e} is needed. Choose smaller "
            f"stds or rescale the tokens, so that variances stay below 10, or use an activation "
            f"with closed forms."
        )


# Chebyshev interpolants on [0, 1/2], in 60 digits, of
#   ARCSINE(y) = asin(sqrt(y)) / sqrt(y)
#   SEGMENT(y) = (sin(t) - t cos(t)) / y^(3/2) with t = 2 asin(sqrt(y)),
# lowest degree first. Relative errors 2.7e-9 and 2.3e-9 (32), 2.0e-17 and 7.4e-18 (64).
_ARCSINE_32 = (
    1.0000000016226234,
    0.16666614237824284,
    0.07502757316352404,
    0.04409161673371687,
    0.03581423928401177,
    -0.0070205791522944755,
    0.10740002130174647,
    -0.13591627123984387,
    0.12391349490512975,
)
_ARCSINE_64 = (
    1.0,
    0.16666666666664987,
    0.07500000000401816,
    0.044642856762615,
    0.030381963396751827,
    0.022371584779320355,
    0.017364281439103527,
    0.01380344589589198,
    0.013191002571753903,
    -0.002601537848299688,
    0.07871611357002127,
    -0.2968705430689824,
    1.0082016650534187,
    -2.4908808126226116,
    4.6420689099888435,
    -6.229299875397985,
    5.7579408313146985,
    -3.278933156739812,
    0.8892904367638688,
)
_SEGMENT_32 = (
    2.666666662864241,
    0.26666763703183927,
    0.08567418180822117,
    0.04030446149980953,
    0.01745561194438718,
    0.03197484780780656,
    -0.027997588411071684,
    0.04061521876440821,
)
_SEGMENT_64 = (
    2.6666666666666665,
    0.26666666666668143,
    0.0857142857111221,
    0.03968253995077448,
    0.022095947639427637,
    0.013767805682029654,
    0.009249048024860408,
    0.006643093513241805,
    0.004226242976164667,
    0.007915306613725855,
    -0.017704735518716593,
    0.07840039475553413,
    -0.20794244601856987,
    0.42909747522187885,
    -0.6245889328726089,
    0.6269979801368656,
    -0.38489219072557274,
    0.11366132592446036,
)


def _polynomial(coefficients: tuple[float, ...], y: Array) -> Array:
    """Even and odd powers apart: two short chains of operations take less time than a long one."""
    square = y * y

    def horner(some: tuple[float, ...]) -> Array:
        result = jnp.full_like(y, some[-1])
        for c in some[-2::-1]:
            result = result * square + c
        return result

    return horner(coefficients[::2]) + horner(coefficients[1::2]) * y


def _angle(s: Array) -> tuple[Array, Array]:
    """Half-angle form of the arc-cosine functions: s = sin^2(theta/2) in [0, 1].

    Returns theta / pi and (sin(theta) - theta cos(theta)) / pi, both relatively accurate at 0.
    """
    wide = s > 0.5
    y = jnp.where(wide, 1 - s, s)
    # Opposite inputs, as scalar tokens often are, have s = 1 up to rounding; theta would feel its
    # square root.
    y = jnp.where(wide & (y < 8 * jnp.finfo(s.dtype).eps), 0, y)
    double = s.dtype == jnp.float64
    root = safe_sqrt(y)
    share = root * _polynomial(_ARCSINE_64 if double else _ARCSINE_32, y) * (2 / math.pi)
    segment = root * y * _polynomial(_SEGMENT_64 if double else _SEGMENT_32, y) * (1 / math.pi)
    return jnp.where(wide, 1 - share, share), jnp.where(wide, segment + (1 - 2 * y), segment)


@lru_cache
def _piecewise_linear(name: str, below: float, fn: Callable[[Array], Array]) -> Activation:
    """phi(u) = u for u > 0, and below * u else: the arc-cosine kernels (Cho & Saul 2009).

    With p = (1 + below)/2 and q = (1 - below)/2, phi(u) = p u + q |u|, and by parity the angles are
    (p^2 + q^2) angle - 4 q^2 sqrt(a a') (sin(theta) - theta cos(theta))/pi and 4 q^2 theta/pi.
    """
    p, q = (1 + below) / 2, (1 - below) / 2
    second = p * p + q * q

    def marginal(a: Array) -> Marginal:
        std = safe_sqrt(a)
        return std, 0.5 * safe_inverse(std)

    def pair(one: Marginal, two: Marginal, angle: Array) -> tuple[Array, Array]:
        (std1, half_inverse1), (std2, half_inverse2) = one, two
        s = jnp.clip(angle * (half_inverse1 * half_inverse2), 0, 1)
        share, segment = _angle(s)
        turned = second * angle - (4 * q * q) * (std1 * std2) * segment
        return jnp.maximum(turned, 0), (4 * q * q) * share

    return Activation(name, fn, lambda a: second * a, second, marginal, pair, homogeneous=True)


def leaky_relu(slope: float) -> Activation:
    """u for u > 0, ``slope`` * u else.

    Raises:
        ValueError: if the slope is not finite.

    Example:
        >>> import rnntk
        >>> rnntk.ElmanRNN(rnntk.activations.leaky_relu(0.1)).phi.name
        'leaky_relu(0.1)'
    """
    if not math.isfinite(slope):
        raise ValueError(f"slope must be finite, got {slope}.")
    return _leaky_relu(float(slope))


@lru_cache
def _leaky_relu(slope: float) -> Activation:
    return _piecewise_linear(
        f"leaky_relu({slope})", slope, lambda u: jnp.where(u > 0, u, slope * u)
    )


def _linear_pair(one: Marginal, two: Marginal, angle: Array) -> tuple[Array, Array]:
    return angle, jnp.zeros_like(angle)


def _gelu(u: Array) -> Array:
    return jax.nn.gelu(u, approximate=False)


def _wave_angles(
    one: tuple[Array, ...], two: tuple[Array, ...], angle: Array
) -> tuple[Array, Array]:
    """Of the sine and of the cosine, which are each other's derivatives up to sign.

    u - u' and u + u' have variances h and g; sin u - sin u' is twice a product of their
    half-angles' waves. E sin u sin u' = (exp(-h/2) - exp(-g/2))/2.
    """
    (std1, e1, sine1, cosine1), (std2, e2, sine2, cosine2) = one, two
    h = (std1 - std2) ** 2 + angle
    g = jnp.maximum((std1 + std2) ** 2 - angle, 0)
    apart, uneven = jnp.expm1(-h / 2), (e1 - e2) ** 2 / 2
    sine = -apart * (1 + jnp.exp(-g / 2)) - uneven
    cosine = apart * jnp.expm1(-g / 2) + uneven
    twice = std1 * std2 * 2 - angle  # twice the covariance
    near = twice > 0
    product = -jnp.exp(-jnp.minimum(h, g) / 2) * jnp.expm1(-jnp.abs(twice)) / 2
    product = jnp.where(near, product, -product)
    return (
        arcs.moment_angle(sine, product, near, sine1, sine2),
        jnp.maximum(cosine - (cosine1 - cosine2) ** 2, 0),  # the norms' ratio is below 2
    )


def _sin_variance(a: Array) -> Array:
    return -jnp.expm1(-2 * a) / 2


def _cos_variance(a: Array) -> Array:
    return (1 + jnp.exp(-2 * a)) / 2


def _wave_marginal(a: Array) -> Marginal:
    return safe_sqrt(a), jnp.exp(-a), safe_sqrt(_sin_variance(a)), jnp.sqrt(_cos_variance(a))


def _numerical(name: str, series: hermite.Series) -> Activation:
    return Activation(
        name,
        series.fn,
        series.variance,
        series.slope,
        series.marginal,
        series.pair,
        error=series.error,
    )


@lru_cache
def _user(fn: Callable[[Array], Array]) -> Activation:
    """Once for each function, so that the same one does not compile again."""
    hermite.check_elementwise(fn)
    return _numerical(hermite.name(fn), hermite.fit(fn))


_REGISTRY = {
    activation.name: activation
    for activation in (
        _piecewise_linear("relu", 0.0, jax.nn.relu),
        _piecewise_linear("abs", -1.0, jnp.abs),
        Activation("linear", lambda u: u, lambda a: a, 1.0, lambda a: (), _linear_pair, True),
        Activation(
            "erf",
            jax.scipy.special.erf,
            arcs.erf_variance,
            lambda a: (4 / math.pi) / jnp.sqrt(1 + 4 * a),
            partial(arcs.sphere, 2.0, arcs.erf_variance),
            arcs.erf_pair,
        ),
        Activation(
            "gelu",
            _gelu,
            arcs.gelu_variance,
            arcs.gelu_slope,
            lambda a: (
                arcs.sphere(1.0, arcs.gelu_variance, a),
                jnp.sqrt(arcs.gelu_slope(a)),
            ),
            arcs.gelu_pair,
        ),
        Activation("sin", jnp.sin, _sin_variance, _cos_variance, _wave_marginal, _wave_angles),
        Activation(
            "cos",
            jnp.cos,
            _cos_variance,
            _sin_variance,
            _wave_marginal,
            lambda one, two, angle: _wave_angles(one, two, angle)[::-1],
        ),
        # orders and terms as hermite.fit finds them
        _numerical("tanh", hermite.Series(jnp.tanh, 2, 2, 320)),
        _numerical("sigmoid", hermite.Series(jax.nn.sigmoid, 2, 2, 147)),
        _numerical("softplus", hermite.Series(jax.nn.softplus, 1, 2, 97)),
        _numerical("silu", hermite.Series(jax.nn.silu, 1, 2, 139)),
        # its derivative, 1 and exp(u), has all derivatives jump from 1 to 0
        _numerical("elu", hermite.Series(jax.nn.elu, 1, 1, 255, jumps=(0.0, *[-1.0] * 17))),
    )
}

NAMES = tuple(_REGISTRY)
"""Activations that a name selects."""

# JAX's other names for them; not jax.nn.gelu, which approximates gelu by a tanh.
_ALIASES: dict[Any, str] = {
    jnp.absolute: "abs",
    jax.lax.abs: "abs",
    jax.nn.identity: "linear",
    jax.lax.erf: "erf",
    jax.lax.sin: "sin",
    jax.lax.cos: "cos",
    jax.lax.tanh: "tanh",
    jax.lax.logistic: "sigmoid",
    jax.scipy.special.expit: "sigmoid",
    jax.nn.celu: "elu",
}
_KNOWN: dict[Any, Activation] = {
    jax.nn.leaky_relu: leaky_relu(0.01),
    **{activation.fn: activation for activation in _REGISTRY.values()},
    **{fn: _REGISTRY[name] for fn, name in _ALIASES.items()},
}


def resolve(activation: str | Activation | Callable[[Array], Array]) -> Activation:
    """The :class:`Activation` meant by a name, an activation, or an elementwise function.

    JAX's own functions mean the activation of their name, where there is one. The moments of any
    other are numerical (see :mod:`rnntk.activations.hermite`), with its derivative by automatic
    differentiation; a function defined anew at every call compiles anew, too. It must be smooth:
    with a kink, or where it is much steeper than tanh, its moments are not accurate at variances
    0.1 and 1 (see :func:`check_accuracy`), and it is refused.

    Raises:
        ValueError: for an unknown name, where the message lists the valid ones, and for a function
            that is not elementwise, not finite, or not smooth.
        TypeError: for anything else, or a function that cannot be evaluated and differentiated on
            JAX arrays, does not return its argument's dtype, or is not hashable.

    Example:
        >>> resolve("relu").name
        'relu'
        >>> resolve(jnp.arctan).name
        'arctan'
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in _REGISTRY:
            raise ValueError(
                f"activation must be one of {NAMES}, rnntk.activations.leaky_relu(slope) or an "
                f"elementwise function, got {activation!r}."
            )
        return _REGISTRY[activation]
    if not callable(activation):
        raise TypeError(
            f"activation must be a name, an Activation or an elementwise function, "
            f"got {activation!r}."
        )
    if not isinstance(activation, Hashable):
        raise TypeError(
            f"activation must be hashable, got {activation!r}: a class with __eq__ needs __hash__."
        )
    if activation in _KNOWN:
        return _KNOWN[activation]
    found = _user(activation)
    hermite.check_smooth(hermite.fit(activation), np.dtype(jnp.result_type(float)))
    return found
