"""Elman recurrent networks in the neural tangent parameterization."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from rnntk import checks
from rnntk.activations.activation import Activation
from rnntk.activations.registry import resolve
from rnntk.network.readouts import READOUTS, Readout

INPUT_SCALINGS = ("none", "fan_in")
INITIAL_STATES = ("zero", "shared", "independent")
GROUPS = ("W", "U", "b", "V")
STDS = ("w_std", "u_std", "b_std", "v_std")
PRECISION = jax.lax.Precision.HIGHEST

Params = dict[str, Any]


@dataclass(frozen=True)
class ElmanRNN:
    r"""An Elman network: what the kernels need to know about it, and nothing else.

    With :math:`m` the width, all parameters are drawn i.i.d. :math:`N(0, 1)` and one step is

    .. math::

        u_s = \frac{w}{\sqrt m} W h_{s-1} + u\, U x_s + b\,\beta, \qquad h_s = \phi(u_s),

    and the output is :math:`\frac{v}{\sqrt m} V r(h)` with :math:`r` the readout (the neural
    tangent parameterization: the multipliers sit outside the weights). Instances are immutable
    JAX pytrees whose leaves are the four standard deviations, so ``jax.grad`` and ``jax.vmap``
    reach them through every kernel; everything else is static. For ``jax.vmap`` they may be
    arrays; outside of it kernels take one number each.

    Args:
        activation: a name from :data:`rnntk.activations.NAMES`, an
            :class:`~rnntk.activations.Activation`, or a smooth elementwise JAX function.
        w_std: multiplier :math:`w` of the recurrent weights.
        u_std: multiplier :math:`u` of the input weights.
        b_std: multiplier of the bias.
        v_std: multiplier :math:`v` of the readout.
        readout: ``"last"`` state, ``"mean"`` of the states over each sequence's own length, or
            an output at every step (``"sequence"``).
        depth: number of stacked layers; layer l reads the states of layer l - 1 as its tokens,
            with multiplier ``u_std / sqrt(m)``.
        bidirectional: add a second, independent network that reads the sequence backwards.
        input_scaling: ``"fan_in"`` divides ``u_std`` by sqrt(d) for the tokens of size d.
        initial_state: ``"zero"``, one random vector ``"shared"`` by all sequences, or an
            ``"independent"`` one for each; random states have ``initial_state_std`` and are
            not trained.
        initial_state_std: standard deviation of the entries of a random initial state.
        trainable: the groups of parameters whose gradients enter the tangent kernel.

    Raises:
        ValueError: for an unknown name, a negative standard deviation, depth below 1, no
            trainable group, or a state's standard deviation that contradicts ``initial_state``.
        TypeError: for a wrong activation (:func:`rnntk.activations.resolve`), or for no number.

    Example:
        >>> import rnntk
        >>> rnntk.ElmanRNN("erf", b_std=0.1).readout
        'last'
    """

    activation: str | Activation | Callable[[Array], Array] = "relu"
    w_std: ArrayLike = math.sqrt(2)
    u_std: ArrayLike = math.sqrt(2)
    b_std: ArrayLike = 0.0
    v_std: ArrayLike = 1.0
    readout: Literal["last", "mean", "sequence"] = "last"
    depth: int = 1
    bidirectional: bool = False
    input_scaling: Literal["none", "fan_in"] = "none"
    initial_state: Literal["zero", "shared", "independent"] = "zero"
    initial_state_std: float = 0.0
    trainable: tuple[str, ...] = GROUPS

    def __post_init__(self) -> None:
        resolve(self.activation)
        for name, valid in (
            ("readout", READOUTS),
            ("input_scaling", INPUT_SCALINGS),
            ("initial_state", INITIAL_STATES),
        ):
            if getattr(self, name) not in tuple(valid):
                raise ValueError(
                    f"{name} must be one of {tuple(valid)}, got {getattr(self, name)!r}."
                )
        for name in (*STDS, "initial_state_std"):
            checks.check_std(name, getattr(self, name))
        checks.check_single(self, ["initial_state_std"])
        if (self.initial_state == "zero") != (self.initial_state_std == 0):
            raise ValueError(
                f"initial_state={self.initial_state!r} and initial_state_std="
                f"{self.initial_state_std} contradict each other: a zero state has no spread, "
                f"a random one needs initial_state_std > 0."
            )
        object.__setattr__(self, "depth", checks.check_size("depth", self.depth))
        if not isinstance(self.bidirectional, bool):
            raise TypeError(f"bidirectional must be True or False, got {self.bidirectional!r}.")
        some = (self.trainable,) if isinstance(self.trainable, str) else self.trainable
        groups = tuple(some) if isinstance(some, Iterable) else ()
        if not groups or not all(g in GROUPS for g in groups):
            raise ValueError(
                f"trainable must be a non-empty selection of {GROUPS}, got {self.trainable!r}."
            )
        object.__setattr__(self, "trainable", tuple(g for g in GROUPS if g in groups))

    @classmethod
    def allen_zhu_li(cls) -> "ElmanRNN":
        """The network of Allen-Zhu & Li (2019): relu, outputs at every step, only W trained.

        Their W and input weights (A) have entries N(0, 2/m): ``w_std = u_std = sqrt(2)``, and no
        bias. Their gradient with respect to W lacks that factor: their kernel is ours divided by
        2 m. The scale of their readout (B) is left at ``v_std = 1``; it multiplies every kernel.
        The rest of their setting is in the data: one fixed unit token first, small norms after.
        From their section on notation as others restate it; the text itself was not at hand.

        Example:
            >>> ElmanRNN.allen_zhu_li().trainable
            ('W',)
        """
        return cls(readout="sequence", trainable=("W",))

    @classmethod
    def wang(cls) -> "ElmanRNN":
        """The network of Wang et al. (2021): relu, weights N(0, 2/m), no bias, last output.

        The conversion is that of :meth:`allen_zhu_li`; tokens may have any norm. Which groups the
        paper trains could not be verified, as its text was not at hand: here W and U.

        Example:
            >>> ElmanRNN.wang().trainable
            ('W', 'U')
        """
        return cls(trainable=("W", "U"))

    @classmethod
    def alemohammad(
        cls, sigma_w: float = 2**0.5, sigma_u: float = 1.0, sigma_b: float = 0.0
    ) -> "ElmanRNN":
        """The RNTK of Alemohammad et al. (2021): relu, last state, all groups trained.

        Their multipliers stand outside standard normal weights, as here: no conversion. Their
        multipliers' values are hyper-parameters; the defaults are this library's, at criticality.

        Args:
            sigma_w: multiplier of the recurrent weights.
            sigma_u: multiplier of the input weights.
            sigma_b: multiplier of the bias.

        Example:
            >>> float(ElmanRNN.alemohammad(sigma_u=0.5).u_std)
            0.5
        """
        return cls(w_std=sigma_w, u_std=sigma_u, b_std=sigma_b)

    @classmethod
    def yang(
        cls, var_w: float = 2.0, var_u: float = 1.0, var_b: float = 0.0, var_v: float = 1.0
    ) -> "ElmanRNN":
        """The networks of Yang (2020), whose weights carry their variances inside.

        The NNGP kernel is the same. The NTK of a group is ours divided by its variance: the sum
        over g of ``infinite_kernel(dataclasses.replace(rnn, trainable=(g,)), x).ntk / var_g``.

        Args:
            var_w: m times the variance of the recurrent weights.
            var_u: variance of the input weights.
            var_b: variance of the bias.
            var_v: m times the variance of the readout.

        Example:
            >>> ElmanRNN.yang(var_w=4.0).w_std
            2.0
        """
        return cls(w_std=var_w**0.5, u_std=var_u**0.5, b_std=var_b**0.5, v_std=var_v**0.5)

    @property
    def phi(self) -> Activation:
        """The activation, with its Gaussian moments."""
        return resolve(self.activation)

    @property
    def r(self) -> Readout:
        """The readout: which states V reads, and in what shares."""
        return READOUTS[self.readout]

    def init(self, key: PRNGKeyArray, *, input_dim: int, width: int, output_dim: int = 1) -> Params:
        """Draw parameters, all entries i.i.d. standard normal.

        Args:
            key: JAX random key.
            input_dim: token size d.
            width: number of hidden units m of every layer.
            output_dim: number of outputs o.

        Returns:
            ``{"W": (m, m), "U": (m, d), "b": (m,), "V": (o, m)}``. A deeper network holds its
            W, U and b in a tuple ``"layers"``; a bidirectional one holds two networks,
            ``"forward"`` and ``"backward"``; a shared random initial state adds ``"h0"``, an
            untrained vector (m,) for each layer.

        Raises:
            TypeError: for what is no JAX random key.
            ValueError: if a size is not a positive integer.

        Example:
            >>> import jax, rnntk
            >>> params = rnntk.ElmanRNN().init(jax.random.key(0), input_dim=3, width=8)
            >>> params["U"].shape
            (8, 3)
        """
        checks.check_key(key)
        for name, size in (("input_dim", input_dim), ("width", width), ("output_dim", output_dim)):
            checks.check_size(name, size)
        if self.bidirectional:
            return {
                name: self._init_one(subkey, input_dim, width, output_dim)
                for name, subkey in zip(("forward", "backward"), jax.random.split(key), strict=True)
            }
        return self._init_one(key, input_dim, width, output_dim)

    def _init_one(self, key: PRNGKeyArray, d: int, m: int, o: int) -> Params:
        key_v, *layer_keys = jax.random.split(key, self.depth + 1)
        layers = []
        for index, layer_key in enumerate(layer_keys):
            key_w, key_u, key_b, key_h = jax.random.split(layer_key, 4)
            layer = {
                "W": jax.random.normal(key_w, (m, m)),
                "U": jax.random.normal(key_u, (m, d if index == 0 else m)),
                "b": jax.random.normal(key_b, (m,)),
            }
            if self.initial_state == "shared":
                layer["h0"] = jax.random.normal(key_h, (m,))
            layers.append(layer)
        v = {"V": jax.random.normal(key_v, (o, m))}
        return layers[0] | v if self.depth == 1 else {"layers": tuple(layers)} | v

    def apply(
        self,
        params: Params,
        x: Float[ArrayLike, "n t d"],
        lengths: Int[ArrayLike, " n"] | None = None,
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n o"] | Float[Array, "n t o"]:
        """Outputs of the network, computed in the dtype of ``x``.

        Args:
            params: from :meth:`init`.
            x: tokens.
            lengths: number of steps of each sequence; the rest is padding.
            key: draws ``"independent"`` initial states, and may be that of :meth:`init`.

        Returns:
            Shape (n, o), or (n, t, o) for the ``"sequence"`` readout, zero at padded steps.

        Raises:
            ValueError: for wrong shapes, lengths out of range, NaN or infinity, parameters of
                another architecture, or a missing ``key``.

        Example:
            >>> import jax, jax.numpy as jnp, rnntk
            >>> rnn = rnntk.ElmanRNN(readout="sequence")
            >>> params = rnn.init(jax.random.key(0), input_dim=3, width=8, output_dim=2)
            >>> rnn.apply(params, jnp.ones((5, 4, 3))).shape
            (5, 4, 2)
        """
        # they stand above this module, like all that use networks
        from rnntk.network.forward import forward
        from rnntk.network.multipliers import multipliers
        from rnntk.network.parameters import check_params, sequence_keys

        x, lengths = checks.check_batch(x, lengths)
        width = check_params(self, params, x.shape[-1])
        scales = multipliers(self, width, x.shape[-1], x.dtype)
        return forward(self, params, x, lengths, sequence_keys(self, key, len(x)), scales).output

    def stax(
        self, width: int, output_dim: int = 1
    ) -> tuple[Callable[..., Any], Callable[..., Array], Callable[..., Any]]:
        """The network as the triple of functions that neural-tangents works on.

        ``init_fn(key, input_shape)`` returns the output's shape and :meth:`init`'s parameters;
        ``apply_fn(params, x)`` is :meth:`apply`, whose untrained groups get zero gradients;
        ``kernel_fn(x1, x2=None, get=None)`` is the kernel at infinite width: an array for ``get``
        "ntk" or "nngp", a namedtuple for a tuple of them, and both for ``None``. Sequences have
        their axis first everywhere: the kernels of the "sequence" readout are (n1, n2, t1, t2).

        ``apply_fn`` and ``kernel_fn`` take ``lengths``, for two batches a tuple of both. Under
        ``jit``, and so in ``nt.batch``, values are not checked and an overflow shows as infinity.

        Args:
            width: number of hidden units m of every layer.
            output_dim: number of outputs o.

        Returns:
            ``(init_fn, apply_fn, kernel_fn)``, for ``nt.predict``, ``nt.batch``,
            ``nt.monte_carlo_kernel_fn``, ``nt.linearize`` and ``nt.empirical_ntk_fn``.

        Raises:
            ValueError: if a size is not a positive integer, or for independent initial states.

        Example:
            >>> import jax.numpy as jnp, rnntk
            >>> init_fn, apply_fn, kernel_fn = rnntk.ElmanRNN().stax(width=64, output_dim=2)
            >>> kernel_fn(jnp.ones((5, 4, 3)), None, "ntk").shape
            (5, 5)
        """
        from rnntk.interop.stax import stax  # likewise

        return stax(self, width, output_dim)


def _flatten(rnn: ElmanRNN) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(getattr(rnn, name) for name in STDS), tuple(getattr(rnn, name) for name in STATIC)


def _flatten_with_keys(rnn: ElmanRNN) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
    stds, static = _flatten(rnn)
    return tuple(zip(map(jax.tree_util.GetAttrKey, STDS), stds, strict=True)), static


def _unflatten(static: tuple[Any, ...], stds: Iterable[Any]) -> ElmanRNN:
    # Without __init__ and its checks: gradients and tangents are trees of the same kind, whose
    # leaves may be negative, tracers, or no numbers at all.
    rnn = object.__new__(ElmanRNN)
    for name, value in zip(STDS + STATIC, (*stds, *static), strict=True):
        object.__setattr__(rnn, name, value)
    return rnn


STATIC = tuple(field.name for field in fields(ElmanRNN) if field.name not in STDS)
# The last argument flattens without the names of the leaves, which jit does at every call.
jax.tree_util.register_pytree_with_keys(ElmanRNN, _flatten_with_keys, _unflatten, _flatten)
