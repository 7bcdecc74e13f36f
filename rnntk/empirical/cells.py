"""Empirical kernels of any recurrent cell whose weights act through matrix products.

The cell is run with weights that note what they read, and whose products are shifted: the gradients
with respect to the shifts are the backpropagated signals. So the engine of
:func:`rnntk.empirical_kernel` serves GRUs, LSTMs and others.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rnntk import checks
from rnntk.empirical.backprop import Factors
from rnntk.empirical.contraction import contract_gram, contract_jacobian
from rnntk.empirical.planning import METHODS
from rnntk.network.elman import PRECISION
from rnntk.tiling import tuning

Cell = Callable[[dict[str, Any], Any, Any], tuple[Any, Any]]


class MisuseError(Exception):
    """A use of a weight that is not allowed; a TypeError would be replaced by one of JAX's own."""


class Weight:
    """A matrix or bias of a cell while it runs, times a scalar.

    ``weight @ vector`` and ``vector + weight`` are all that it can do, so that no use goes unseen.
    """

    __array_ufunc__ = None  # arrays of NumPy leave their operators to this class

    def __init__(
        self, name: str, value: Array, shift: Array, reads: dict[str, Array], scale: Any = 1.0
    ) -> None:
        self._name, self._value, self._shift = name, value, shift
        self._reads, self._scale = reads, scale

    def __matmul__(self, vector: Float[ArrayLike, " k"]) -> Float[Array, " c"]:
        """The product with what the matrix reads."""
        if self._value.ndim != 2 or isinstance(vector, Weight):
            self._refuse()
        self._check_shape(vector, [self._value.shape[1:]])
        read = self._scale * vector
        self._note(read)
        return jnp.matmul(self._value, read, precision=PRECISION) + self._shift

    def __add__(self, vector: ArrayLike) -> Float[Array, " c"]:
        """The sum with a bias."""
        if self._value.ndim != 1 or isinstance(vector, Weight):
            self._refuse()
        self._check_shape(vector, [self._value.shape, ()])
        self._note(self._scale * jnp.ones(1, self._value.dtype))
        return vector + (self._scale * self._value + self._shift)

    __radd__ = __add__

    def __mul__(self, factor: ArrayLike) -> "Weight":
        """The weight times a number: what it reads is multiplied instead."""
        return self._scaled(self._scale * self._scalar(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: ArrayLike) -> "Weight":
        """The weight divided by a number."""
        return self._scaled(self._scale / self._scalar(divisor))

    def __neg__(self) -> "Weight":
        """The weight times -1."""
        return self._scaled(-self._scale)

    def _scaled(self, scale: Any) -> "Weight":
        return Weight(self._name, self._value, self._shift, self._reads, scale)

    def _scalar(self, factor: Any) -> Array:
        if isinstance(factor, Weight) or jnp.ndim(factor) != 0:
            self._refuse()
        return jnp.asarray(factor, self._value.dtype)

    def _check_shape(self, vector: Any, shapes: list[tuple[int, ...]]) -> None:
        if jnp.shape(vector) not in shapes:
            raise ValueError(
                f"params[{self._name!r}] of shape {self._value.shape} takes a vector of shape "
                f"{shapes[0]}, got {jnp.shape(vector)}."
            )

    def _note(self, read: Array) -> None:
        if self._name in self._reads:
            raise ValueError(f"the cell must use params[{self._name!r}] once a step, not twice.")
        self._reads[self._name] = read

    def _refuse(self, *_: Any) -> NoReturn:
        weight = f"params[{self._name!r}]"
        matrix = self._value.ndim == 2
        kind, use = ("matrix", f"{weight} @ vector") if matrix else ("bias", f"vector + {weight}")
        raise MisuseError(
            f"{weight} is a {kind}: the cell must use it as {use}, perhaps "
            "times a scalar, in no other way, and not as an argument of functions such as jit."
        )

    __sub__ = __rsub__ = __rmatmul__ = __rtruediv__ = __pow__ = __getitem__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what arrays have, which JAX's functions ask for; Python's own names are absent."""
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse()


def cell_ntk(
    cell: Cell,
    params: dict[str, Float[ArrayLike, "..."]],
    state: Any,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    method: str = "auto",
) -> Float[Array, "n1 n2"]:
    """Empirical NTK of the last output of a recurrent cell, averaged over its outputs.

    Memory is not bounded: the factors of the gradients of all sequences are held at once, o c + k
    numbers for each parameter, sequence and step.

    Args:
        cell: ``cell(params, state, token) -> (state, output)`` for one sequence. Each parameter is
            used once a step, a matrix as ``params[name] @ vector``, a bias as
            ``vector + params[name]``, or a multiple by a scalar likewise, and by the cell itself:
            not inside of ``jit``, ``cond`` or ``scan``. The output is a vector or a scalar.
        params: matrices (c, k) and biases (c,) by name; all are trained.
        state: initial state, an array or a pytree of them, the same for all sequences; converted
            to the dtype of the tokens.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself.
        method: ``"gram"``, for short sequences, ``"jacobian"``, for long ones, or ``"auto"``, the
            one that takes fewer operations: see :func:`rnntk.empirical_kernel`.

    Returns:
        The mean over outputs k of <grad f_k(x_i), grad f_k(x_j)>.

    Raises:
        ValueError: for an unknown method, bad tokens, wrong shapes, NaN or infinity in ``params``
            or ``state``, or a parameter that is used twice or never.
        TypeError: for parameters that are no dict of arrays, one that is used otherwise, or a cell
            that does not return a state like its own and one array.
        FloatingPointError: where the kernel overflows its dtype.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> def cell(params, state, token):
        ...     state = jnp.tanh(params["W"] @ state + params["U"] @ token + params["b"])
        ...     return state, params["V"] @ state
        >>> shapes = {"W": (8, 8), "U": (8, 3), "b": (8,), "V": (1, 8)}
        >>> keys = dict(zip(shapes, jax.random.split(jax.random.key(0), 4)))
        >>> params = {name: 0.3 * jax.random.normal(keys[name], shapes[name]) for name in shapes}
        >>> x = jax.random.normal(jax.random.key(1), (5, 4, 3))
        >>> rnntk.cell_ntk(cell, params, jnp.zeros(8), x).shape
        (5, 5)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    x1, _ = checks.check_batch(x1, None, "1")
    x2, _ = checks.check_second(x1, x2, None)
    arrays = _arrays(params, x1.dtype)
    state = jax.tree.map(partial(_initial, dtype=x1.dtype), state)
    one = _factors(cell, arrays, state, x1)
    two = one if x2 is None else _factors(cell, arrays, state, x2)
    if method == "gram" or (method == "auto" and _gram_is_cheaper(one, two)):
        total = contract_gram((one,), (two,), tile=tuning.CELL_TILE, mirror=x2 is None)
    else:
        total = contract_jacobian((one,), (two,), units=tuning.CELL_TILE, mirror=x2 is None)
    if checks.is_concrete(total) and not bool(jnp.isfinite(total).all()):
        raise FloatingPointError(checks.overflow("The kernel of the cell", x1.dtype))
    return total[:, 0, :, 0]


def _gram_is_cheaper(one: tuple[Factors, ...], two: tuple[Factors, ...]) -> bool:
    """By the operations that docs/theory/empirical.md counts, without the mirror's half of both."""
    (n1, t1, *_), (n2, t2, *_) = one[0].signals.shape, two[0].signals.shape
    gram = jacobian = 0.0
    for factors in one:
        c, k = factors.signals.shape[-1], factors.reads.shape[-1]
        gram += n1 * n2 * t1 * t2 * (c + k + tuning.ENTRY)
        jacobian += (tuning.FORM * (n1 * t1 + n2 * t2) + tuning.MULTIPLY * n1 * n2) * c * k
    return gram <= jacobian


def _arrays(params: Any, dtype: jnp.dtype) -> dict[str, Array]:
    if not isinstance(params, Mapping) or not params:
        raise TypeError(f"params must be a dict of arrays by name, got {type(params).__name__}.")
    arrays = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            raise TypeError(f"params[{name!r}] must be an array, got {type(value).__name__}.")
        arrays[name] = jnp.asarray(value, dtype)
        if arrays[name].ndim not in (1, 2):
            raise ValueError(
                f"params[{name!r}] must be a matrix (c, k) or a bias (c,), got {jnp.shape(value)}."
            )
        checks.check_finite(f"params[{name!r}]", arrays[name])
    return arrays


def _initial(leaf: Any, dtype: jnp.dtype) -> Array:
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return jnp.asarray(leaf)
    array = jnp.asarray(leaf, dtype)
    checks.check_finite("state", array)
    return array


def _factors(
    cell: Cell, params: dict[str, Array], state: Any, x: Float[Array, "n t d"]
) -> tuple[Factors, ...]:
    n, t, _ = x.shape
    shifts = {name: jnp.zeros((t, n, len(value)), x.dtype) for name, value in params.items()}

    def step(state: Any, inputs: tuple[Array, dict[str, Array]]) -> tuple[Any, Any]:
        token, shift = inputs
        reads: dict[str, Array] = {}
        weights = {name: Weight(name, params[name], shift[name], reads) for name in params}
        try:
            result = cell(weights, state, token)
        except MisuseError as error:
            raise TypeError(str(error)) from None
        state, output = _returned(result, state)
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
        # (o, t, n, c) to (n, t, 1, o c): the outputs are contracted with the units
        Factors(
            signals[name].transpose(2, 1, 0, 3).reshape(n, t, 1, -1), reads[name].swapaxes(0, 1)
        )
        for name in params
    )


def _returned(result: Any, before: Any) -> tuple[Any, Float[Array, " o"]]:
    """The state and the output of a cell, if they are what they must be."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"the cell must return (state, output), got {_kind(result)}.")
    state, output = result
    if _kind(state) != _kind(before):
        raise TypeError(f"the cell must return a state like {_kind(before)}, got {_kind(state)}.")
    if not isinstance(output, jax.Array) or output.ndim > 1:
        raise TypeError(f"the cell's output must be one vector or scalar, got {_kind(output)}.")
    return state, output.reshape(-1)


def _kind(tree: Any) -> str:
    """The arrays of a pytree by dtype and shape, as text."""
    return str(jax.tree.map(lambda v: f"{jnp.result_type(v)}{jnp.shape(v)}", tree))
