"""Empirical kernels of any recurrent cell whose weights act through matrix products.

The cell is run with weights that note what they read, and whose products are shifted: the gradients
with respect to the shifts are the backpropagated signals. So the engine of
:func:`rnntk.empirical_kernel` serves GRUs, LSTMs and others.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rnntk import sequences
from rnntk.backprop import Factors
from rnntk.contraction import gram, jacobian
from rnntk.elman import PRECISION

Cell = Callable[[dict[str, Any], Any, Any], tuple[Any, Any]]
METHODS = ("gram", "jacobian")
TILE = 16


class Weight:
    """A matrix or bias of a cell while it runs: ``weight @ vector`` or ``vector + weight``."""

    def __init__(self, name: str, value: Array, shift: Array, reads: dict[str, Array]) -> None:
        self._name, self._value, self._shift, self._reads = name, value, shift, reads

    def __matmul__(self, vector: Float[Array, " k"]) -> Float[Array, " c"]:
        """The product with what the matrix reads."""
        if self._value.ndim != 2:
            raise TypeError(f"params[{self._name!r}] is a bias, which a cell adds to a vector.")
        self._note(vector)
        return jnp.matmul(self._value, vector, precision=PRECISION) + self._shift

    def __add__(self, vector: Float[Array, " c"]) -> Float[Array, " c"]:
        """The sum with a bias."""
        if self._value.ndim != 1:
            raise TypeError(f"params[{self._name!r}] is a matrix, which a cell multiplies by @.")
        self._note(jnp.ones(1, self._value.dtype))
        return vector + (self._value + self._shift)

    __radd__ = __add__

    def _note(self, read: Array) -> None:
        if self._name in self._reads:
            raise ValueError(f"the cell must use params[{self._name!r}] once a step, not twice.")
        self._reads[self._name] = read


def cell_kernel(
    cell: Cell,
    params: dict[str, Float[ArrayLike, "..."]],
    state: Any,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    method: str = "gram",
) -> Float[Array, "n1 n2"]:
    """Empirical NTK of the last output of a recurrent cell, averaged over its outputs.

    Args:
        cell: ``cell(params, state, token) -> (state, output)`` for one sequence. Each parameter is
            used once a step, a matrix as ``params[name] @ vector``, a bias as
            ``vector + params[name]``; any multipliers are the cell's.
        params: matrices (c, k) and biases (c,) by name; all are trained.
        state: initial state, an array or a pytree of them, the same for all sequences.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself.
        method: ``"gram"`` for short sequences, ``"jacobian"`` for long ones: see
            :func:`rnntk.empirical_kernel`.

    Returns:
        The mean over outputs k of <grad f_k(x_i), grad f_k(x_j)>.

    Raises:
        ValueError: for an unknown method, bad tokens, or a parameter that is used twice or never.
        TypeError: for a parameter that is used otherwise.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> def cell(params, state, token):
        ...     state = jnp.tanh(params["W"] @ state + params["U"] @ token + params["b"])
        ...     return state, params["V"] @ state
        >>> shapes = {"W": (8, 8), "U": (8, 3), "b": (8,), "V": (1, 8)}
        >>> keys = dict(zip(shapes, jax.random.split(jax.random.key(0), 4)))
        >>> params = {name: 0.3 * jax.random.normal(keys[name], shapes[name]) for name in shapes}
        >>> x = jax.random.normal(jax.random.key(1), (5, 4, 3))
        >>> rnntk.cell_kernel(cell, params, jnp.zeros(8), x).shape
        (5, 5)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    x1, _ = sequences.check_batch(x1, None, "1")
    x2, _ = sequences.check_second(x1, x2, None)
    arrays = {name: jnp.asarray(value, x1.dtype) for name, value in params.items()}
    for name, value in arrays.items():
        if value.ndim not in (1, 2):
            raise ValueError(
                f"params[{name!r}] must be a matrix (c, k) or a bias (c,), got {value.shape}."
            )
    one = _factors(cell, arrays, state, x1)
    two = one if x2 is None else _factors(cell, arrays, state, x2)
    if method == "gram":
        total = gram(one, two, tile=min(TILE, len(x1)), mirror=x2 is None)
    else:
        total = jacobian(one, two, units=TILE, mirror=x2 is None)
    return total[:, 0, :, 0]


def _factors(
    cell: Cell, params: dict[str, Array], state: Any, x: Float[Array, "n t d"]
) -> tuple[Factors, ...]:
    n, t, _ = x.shape
    shifts = {name: jnp.zeros((t, n, len(value)), x.dtype) for name, value in params.items()}

    def step(state: Any, inputs: tuple[Array, dict[str, Array]]) -> tuple[Any, Any]:
        token, shift = inputs
        reads: dict[str, Array] = {}
        weights = {name: Weight(name, params[name], shift[name], reads) for name in params}
        state, output = cell(weights, state, token)
        if unused := sorted(set(params) - set(reads)):
            raise ValueError(f"the cell must use every parameter, got no use of {unused}.")
        return state, (output, reads)

    def run(shifts: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        start = jax.tree.map(lambda v: jnp.broadcast_to(v, (n, *jnp.shape(v))), state)
        inputs = x.swapaxes(0, 1), shifts
        _, (outputs, reads) = jax.lax.scan(jax.vmap(step), start, inputs)
        return outputs[-1], reads

    last, pull, reads = jax.vjp(run, shifts, has_aux=True)
    o = last.shape[-1]
    basis = jnp.eye(o, dtype=x.dtype)[:, None, :] / jnp.sqrt(jnp.asarray(o, x.dtype))
    signals = jax.vmap(lambda one: pull(jnp.broadcast_to(one, last.shape))[0])(basis)
    return tuple(
        # (o, t, n, c) to (t, n, 1, o c): the outputs are contracted with the units
        Factors(signals[name].transpose(1, 2, 0, 3).reshape(t, n, 1, -1), reads[name])
        for name in params
    )
