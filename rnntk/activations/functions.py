"""Activations from users' functions: what may be one, and how accurate its moments are."""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rnntk import checks
from rnntk.activations import accuracy, hermite
from rnntk.activations.activation import Activation
from rnntk.activations.hermite import Fn
from rnntk.activations.safe import derivative


def name(fn: Fn) -> str:
    """What messages call a function."""
    if isinstance(fn, partial):
        return name(fn.func)
    return str(getattr(fn, "__name__", type(fn).__name__))


def from_function(fn: Callable[[Array], Array], *, tolerance: float | None = None) -> Activation:
    """The activation of any smooth elementwise JAX function, by a Hermite series.

    Its derivative is JAX's. A function defined anew at every call compiles anew, too.

    Args:
        fn: elementwise on JAX arrays, such as ``jnp.arctan``.
        tolerance: the relative error of moments that is accepted; by default 1e-8 in float64, and
            1e-5 in float32. Functions with a kink, or much steeper than tanh, need more. A kernel
            whose moments are worse than by default comes with a warning that tells their estimated
            error; at given variances it is ``from_function(...).error(variances)``.

    Raises:
        ValueError: for a function that is not elementwise or not finite, or whose estimated error
            at variances 0.1 and 1 exceeds the tolerance (the message says which would pass), and
            for a tolerance that is not between 0 and 1.
        TypeError: for a function that cannot be evaluated and differentiated on JAX arrays, does
            not return its argument's dtype, or is not hashable.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> hat = from_function(lambda u: jnp.maximum(u, -0.5), tolerance=0.1)
        >>> bool(hat.error(np.array([1.0]))[0] < 0.1)
        True
    """
    if not isinstance(fn, Hashable):
        raise TypeError(
            f"activation must be hashable, got {fn!r}: a class with __eq__ needs __hash__."
        )
    if tolerance is not None:
        checks.check_positive("tolerance", tolerance, most=1.0)
    found = _from_function(fn, tolerance)
    _check_smooth(found, np.dtype(jnp.result_type(float)))
    return found


@lru_cache
def _from_function(fn: Fn, tolerance: float | None) -> Activation:
    """Once for each function, so that the same one does not compile again."""
    check_elementwise(fn)
    series = hermite.fit(fn)
    return Activation(
        name(fn),
        fn,
        series.alone,
        series.pair,
        error=series.error,
        tolerance=tolerance,
        expansion=series.expansion,
    )


@lru_cache
def _check_smooth(activation: Activation, dtype: np.dtype) -> None:
    """Refuse what is inaccurate at usual variances: kernels under ``jax.jit`` cannot see theirs."""
    found = accuracy.find_inaccurate(activation, np.array([0.1, 1.0], dtype))
    if found and found.refused:
        raise ValueError(
            f"activation {activation.name} must be smooth, and not much steeper than tanh: its "
            f"moments at variance {found.variance:.1g} have an estimated relative error of "
            f"{found.error:.1e} in a series, and {found.limit:.0e} is needed ({found.remedy}). "
            f"Functions with kinks or jumps need closed forms, as the names 'relu', 'abs' and "
            f"'elu' and rnntk.activations.leaky_relu(slope) have."
        )


def check_elementwise(fn: Fn) -> None:
    """Refuse a function that cannot be an activation, saying why.

    Raises:
        TypeError: if it does not take or return JAX arrays of its argument's dtype, or has no
            derivative in reverse mode.
        ValueError: if it is not elementwise, or not finite, with its derivative, in float64 and in
            float32 on +-38 (12 standard deviations at variance 10).
    """
    title = f"activation {name(fn)}"
    grid = np.linspace(-38.0, 38.0, 8001)
    nodes = np.outer(np.sqrt([0.1, 1.0, hermite.VARIANCE]), hermite.COARSE()[0]).ravel()
    points = np.unique(np.concatenate([grid, nodes]))
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        u = jnp.asarray(points)
        value = _attempt(title, lambda: jax.jit(lambda v: fn(v))(u))
        if not isinstance(value, jax.Array) or value.dtype != u.dtype:
            got = value.dtype if isinstance(value, jax.Array) else type(value).__name__
            raise TypeError(
                f"{title} must return real numbers of its argument's dtype, got {got} "
                f"for {u.dtype}."
            )
        if value.shape != u.shape:
            raise ValueError(
                f"{title} must be elementwise, but maps shape {u.shape} to {value.shape}."
            )
        some = slice(0, None, len(u) // 8)
        alone = _attempt(title, lambda: jnp.concatenate([fn(v[None]) for v in u[some]]))
        if not np.allclose(alone, value[some], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise ValueError(f"{title} must be elementwise, but an output depends on other inputs.")
    for double in (True, False):
        with jax.ensure_compile_time_eval(), jax.enable_x64(double):
            _check_finite(
                title, fn, jnp.asarray(points.astype(np.float64 if double else np.float32))
            )


def _attempt(title: str, call: Callable[[], Any]) -> Any:
    """Any error of a user's function means that it is not what is asked for."""
    try:
        return call()
    except Exception as error:
        raise TypeError(
            f"{title} must be an elementwise, differentiable function on JAX arrays (jax.numpy, "
            f"not numpy), but raises {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


def _check_finite(title: str, fn: Fn, u: Array) -> None:
    for what, function in (("value", fn), ("derivative", partial(derivative, fn))):
        numbers = np.asarray(_attempt(title, partial(function, u)))
        bad = ~np.isfinite(numbers)
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(
                f"{title} must be finite, got the {what} {float(numbers[i])} at "
                f"{float(u[i]):.4g} in {u.dtype}."
            )
