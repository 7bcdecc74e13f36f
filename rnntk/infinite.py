"""The NTK and NNGP kernels of Elman networks of infinite width.

A *cell* (s, s') pairs step s of one sequence with step s' of another. The cells of one diagonal
s - s' form a recursion of their own; the "last" readout needs the diagonal through the ends, the
other readouts all of them.

Kernels are carried as squared distances, dist(M)_ij = M_ii + M_jj - 2 M_ij: between nearly equal
sequences the kernel itself has lost the digits that tell them apart. With a the variance of the
pre-activations, T their tangent kernel, K the states' covariance and B = Kd T, one step of a
layer is

    h = dist(L) = w^2 dist(K) + u^2 dist(tokens),      a = w^2 K_ii + u^2 |token|^2 + b^2,
    dist(T) = (trained parts of h) + w^2 dist(B),      T_ii likewise,
    dist(K), dist(Kd) = moments of phi at (a_i, a_j, h),
    dist(B) = (dist(Kd) (T_ii + T_jj - dist(T)) + (Kd_ii + Kd_jj) dist(T)
               + (Kd_ii - Kd_jj) (T_ii - T_jj)) / 2.

What depends on one sequence alone is computed beforehand. In a deeper layer the tokens are the
states below, and their u^2 dist(B) adds to dist(T). Derivation: docs/theory/infinite.md.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from rnntk import sequences, tiles
from rnntk.elman import ElmanRNN
from rnntk.kernel import Kernel, symmetric

CHUNK = 8  # token entries whose squared differences XLA adds up in one pass over the pairs
WORKERS = 2
TILE = 340


class Layer(NamedTuple):
    """What one layer's recursion over pairs needs of each sequence alone, at every step."""

    before: Float[Array, "t n"]  # E h_{s-1}^2
    back_before: Float[Array, "t n"]  # B_ii one step earlier
    drive: Float[Array, "t n"]  # u^2 <token, token>
    variance: Float[Array, "t n"]  # a = E u_s^2
    tangent: Float[Array, "t n"]  # T_ii
    after: Float[Array, "t n"]  # E h_s^2
    back: Float[Array, "t n"]  # B_ii
    slope: Float[Array, "t n"]  # E phi'(u_s)^2
    marginal: Any  # of the activation at a, leaves (t, ..., n)


class Side(NamedTuple):
    """One batch of sequences, ready to be paired with another."""

    tokens: tuple[Float[Array, "t_chunks n"], ...]  # u x_s; entry c * CHUNK + k at [k][s * C + c]
    start: Int[Array, " n"] | None  # first step, where sequences are aligned at their ends
    lengths: Int[Array, " n"] | None  # of sequences aligned at their starts
    layers: tuple[Layer, ...]


class Pairs(NamedTuple):
    """A layer's recursion at one cell, over all pairs of sequences."""

    state: Float[Array, "n1 n2"]  # dist(K); inside a step, dist(L)
    tangent: Float[Array, "n1 n2"]  # dist(B); inside a step, dist(T)


AllPairs = tuple[Pairs, ...]  # one for each layer
Where = tuple[Any, Any]  # a cell (s, s'), of numbers or tracers


class Scales(NamedTuple):
    """Squared multipliers, and variance of the initial state, in the dtype of the tokens."""

    w2: Array
    u2: Array
    b2: Array
    v2: Array
    h2: Array


class Both(NamedTuple):
    """What stays the same from cell to cell."""

    rnn: ElmanRNN
    scales: Scales
    one: Side
    two: Side
    same: Bool[Array, "n1 n2"] | None  # pairs that are one and the same sequence, if there are any


def infinite_kernel(
    rnn: ElmanRNN,
    x1: Float[ArrayLike, "n1 t1 d"],
    x2: Float[ArrayLike, "n2 t2 d"] | None = None,
    *,
    lengths1: Int[ArrayLike, " n1"] | None = None,
    lengths2: Int[ArrayLike, " n2"] | None = None,
) -> Kernel:
    """Tangent and conjugate kernel of ``rnn`` in the limit of infinite width.

    The recursions of Alemohammad et al. (2021) and Yang (2020) in the parameterization of
    :class:`~rnntk.ElmanRNN`; docs/theory/infinite.md derives them. The cost is n1 n2 t for the
    "last" readout and n1 n2 t1 t2 for the others, the work space a few (n1, n2) arrays.

    Args:
        rnn: the network.
        x1: tokens of the first batch; their dtype is the kernel's.
        x2: tokens of the second batch; omitted, the kernel is that of ``x1`` with itself and
            exactly symmetric. Sequences of two batches are different sequences, also where their
            tokens are equal: this matters for ``initial_state="independent"`` alone.
        lengths1: steps of each sequence of ``x1``; the rest is padding, whose values are ignored.
            Sequences of different lengths are compared aligned at their ends ("last").
        lengths2: likewise for ``x2``.

    Returns:
        Kernel of shape (n1, n2), or (n1, t1, n2, t2) for the "sequence" readout, zero at padded
        steps.

    Raises:
        ValueError: for wrong shapes, unequal token sizes, lengths out of range, NaN or infinity.
        TypeError: for tokens that are not floating point or of two dtypes.
        FloatingPointError: where the recursion leaves the range of the dtype, naming the step.
            Under ``jax.jit`` the values are not known, and neither error nor warning is possible.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> kernel = rnntk.infinite_kernel(rnntk.ElmanRNN(), x)
        >>> kernel.ntk.shape, bool((kernel.ntk == kernel.ntk.T).all())
        ((5, 5), True)
    """
    x1, lengths1 = sequences.check_batch(x1, lengths1, "1")
    x2, lengths2 = sequences.check_second(x1, x2, lengths2)
    one = _prepare(rnn, x1, lengths1)
    two = one if x2 is None else _prepare(rnn, x2, lengths2)
    if not sequences.is_concrete(one[0].layers[-1].after[0, 0] + two[0].layers[-1].after[0, 0]):
        return jax.jit(_block, static_argnames="mirror")(rnn, one, two, mirror=x2 is None)
    for side in (*one, *two):
        _check_range(side)
    (t1, n1), (t2, n2) = (sides[0].layers[0].drive.shape for sides in (one, two))
    shape = (n1, t1, n2, t2) if rnn.readout == "sequence" else (n1, n2)
    block = partial(_compiled(next(iter(x1.devices())).platform), rnn)
    return tiles.assemble(block, one, two, shape, x1.dtype, mirror=x2 is None)


@lru_cache
def _compiled(platform: str) -> Callable[..., Kernel]:
    # XLA defaults to half of the width of AVX-512 registers; the full width is a fifth faster.
    options = {"xla_cpu_prefer_vector_width": 512} if platform == "cpu" else None
    return jax.jit(_block, static_argnames=("mirror",), compiler_options=options)


class Preactivation(NamedTuple):
    """The last pre-activations u_T of the top layer, over a batch with itself.

    Attributes:
        variance: q_i = E u_i^2.
        distance: h_ij = E (u_i - u_j)^2.
        tangent: T_T, the tangent kernel of u_T over the trained groups among W, U and b.
    """

    variance: Float[Array, " n"]
    distance: Float[Array, "n n"]
    tangent: Float[Array, "n n"]


@jax.jit
def last_preactivation(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> Preactivation:
    """The recursion of the "last" readout, stopped before the last activation."""
    side, last = prepare(rnn, x, None), x.shape[1] - 1
    both = Both(rnn, _scales(rnn, x.dtype), side, side, jnp.eye(len(x), dtype=bool))

    def step(pairs: AllPairs, s: Array) -> tuple[AllPairs, None]:
        return _advance(both, (s, s), pairs, _token_distance(both, (s, s)))[1], None

    pairs = jax.lax.scan(step, _begin(both, (0, 0)), jnp.arange(last))[0]
    drive = _token_distance(both, (last, last))
    top = _advance(both, (last, last), pairs, drive)[0][-1]
    layer = side.layers[-1]
    tangent = (_sum(layer.tangent[last], layer.tangent[last]) - top.tangent) / 2
    return Preactivation(layer.variance[last], top.state, symmetric(tangent))


@jax.jit
def _prepare(rnn: ElmanRNN, x: Array, lengths: Array | None) -> tuple["Side", ...]:
    """One side for each direction of reading."""
    forward = prepare(rnn, x, lengths)
    if not rnn.bidirectional:
        return (forward,)
    return forward, prepare(rnn, sequences.reverse(x, lengths), lengths)


def _block(rnn: ElmanRNN, one: tuple["Side", ...], two: tuple["Side", ...], mirror: bool) -> Kernel:
    """The kernel of all pairs at once; ``mirror`` says that both sides are the same sequences."""
    n, dtype = one[0].layers[0].drive.shape[1], one[0].layers[0].drive.dtype
    same = jnp.eye(n, dtype=bool) if mirror else None
    # On CPU, XLA does not vectorize passes that read one array both as rows and as columns.
    two = jax.lax.optimization_barrier(two)
    kernels = [
        pair_kernel(Both(rnn, _scales(rnn, dtype), side1, side2, same))
        for side1, side2 in zip(one, two, strict=True)
    ]
    if rnn.bidirectional and rnn.readout == "sequence":
        kernels[1] = _reverse_steps(kernels[1], one[1].lengths, two[1].lengths)
    total = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *kernels)
    return jax.tree.map(symmetric, total) if mirror else total


def _scales(rnn: ElmanRNN, dtype: jnp.dtype) -> Scales:
    stds = (rnn.w_std, rnn.u_std, rnn.b_std, rnn.v_std, rnn.initial_state_std)
    return Scales(*(jnp.square(jnp.asarray(std, dtype)) for std in stds))


def prepare(rnn: ElmanRNN, x: Float[Array, "n t d"], lengths: Int[Array, " n"] | None) -> Side:
    """The recursion of each sequence with itself, and the tokens laid out for the pairs."""
    n, t, d = x.shape
    start = None
    if rnn.readout == "last" and lengths is not None:
        start = t - lengths
        steps = jnp.arange(t)[None, :] - start[:, None]
        x = jnp.take_along_axis(x, jnp.maximum(steps, 0)[..., None], axis=1)
        x = jnp.where((steps >= 0)[..., None], x, 0)
    x = x * rnn.u_scale(d, x.dtype)
    scales = _scales(rnn, x.dtype)
    drive = jnp.sum(x * x, axis=2).T
    below = jnp.zeros_like(drive)
    layers = []
    for _ in range(rnn.depth):
        layer = _alone(rnn, scales, drive, below, start)
        layers.append(layer)
        drive, below = scales.u2 * layer.after, scales.u2 * layer.back
    chunk = min(d, CHUNK)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -d % chunk)))
    tokens = tuple(x.transpose(1, 2, 0).reshape(-1, chunk, n).swapaxes(0, 1))
    return Side(tokens, start, lengths if start is None else None, tuple(layers))


def _alone(rnn: ElmanRNN, scales: Scales, drive: Array, below: Array, start: Array | None) -> Layer:
    """One layer's recursion of each sequence with itself; ``below`` is u^2 B of the layer below."""

    def step(carry: tuple[Array, Array], inputs: tuple[Array, ...]) -> tuple[Any, Layer]:
        before, back_before = carry
        s, token, tangent_below = inputs
        a = scales.w2 * before + token + scales.b2
        trained = _trained(rnn, scales.w2 * before, token, jnp.broadcast_to(scales.b2, a.shape))
        tangent = trained + scales.w2 * back_before + tangent_below
        constant = rnn.phi.slope
        slope = jnp.full_like(a, constant) if isinstance(constant, float) else constant(a)
        after, back = rnn.phi.variance(a), slope * tangent
        if start is not None:
            after = jnp.where(s < start, scales.h2, after)
            back = jnp.where(s < start, 0, back)
        marginal = rnn.phi.marginal(a)
        layer = Layer(before, back_before, token, a, tangent, after, back, slope, marginal)
        return (after, back), layer

    first = jnp.broadcast_to(scales.h2, drive.shape[1:])
    inputs = (jnp.arange(len(drive)), drive, below)
    return jax.lax.scan(step, (first, jnp.zeros_like(first)), inputs)[1]


def _trained(rnn: ElmanRNN, recurrent: Array, token: Array, bias: Array) -> Array:
    """The sum of the parts of L (or of its distances) that belong to trained groups."""
    parts = {"W": recurrent, "U": token, "b": bias}
    return sum((parts[g] for g in rnn.trainable if g in parts), jnp.zeros_like(recurrent))


def pair_kernel(both: Both) -> Kernel:
    """Kernel of all pairs of sequences of the two sides."""
    t1, t2 = len(both.one.layers[0].drive), len(both.two.layers[0].drive)
    if both.rnn.readout == "last":
        return _last(both, t1, t2)
    cells = _diagonals(t1, t2)

    def visit(pairs: AllPairs, cell: Array) -> tuple[AllPairs, Kernel]:
        where = cell[0], cell[1]
        pairs = _advance(both, where, _restart(both, where, pairs), _token_distance(both, where))[1]
        exists = _exists(both.one, cell[0])[:, None] & _exists(both.two, cell[1])[None, :]
        return pairs, jax.tree.map(lambda k: jnp.where(exists, k, 0), _read(both, where, pairs))

    start = _begin(both, (0, 0))
    if both.rnn.readout == "sequence":
        kernel = jax.lax.scan(visit, start, jnp.asarray(cells))[1]
        order = np.argsort(cells[:, 0] * t2 + cells[:, 1])
        return jax.tree.map(
            lambda k: k[order].reshape(t1, t2, *k.shape[1:]).transpose(2, 0, 3, 1), kernel
        )

    def add(carry: tuple[AllPairs, Kernel], cell: Array) -> tuple[tuple[AllPairs, Kernel], None]:
        pairs, kernel = visit(carry[0], cell)
        return (pairs, jax.tree.map(jnp.add, carry[1], kernel)), None

    zero = jnp.zeros_like(start[0].state)
    total = jax.lax.scan(add, (start, Kernel(zero, zero)), jnp.asarray(cells))[0][1]
    counts = _count(both.one)[:, None] * _count(both.two)[None, :]
    return jax.tree.map(lambda k: k / counts, total)


def _last(both: Both, t1: int, t2: int) -> Kernel:
    """The diagonal through both ends."""
    steps = min(t1, t2)
    first = t1 - steps, t2 - steps
    ragged = both.one.start is not None or both.two.start is not None

    def step(carry: tuple[AllPairs, Array], s: Array) -> tuple[tuple[AllPairs, Array], None]:
        pairs, drive = carry
        where = s + first[0], s + first[1]
        if ragged:
            pairs = _restart(both, where, pairs)
        # The next drive now, for the loop to keep: XLA would repeat it in each pass that reads it.
        upcoming = jnp.minimum(s + 1, steps - 1)
        drive_next = _token_distance(both, (upcoming + first[0], upcoming + first[1]))
        return (_advance(both, where, pairs, drive)[1], drive_next), None

    start = _begin(both, first), _token_distance(both, first)
    pairs = jax.lax.scan(step, start, jnp.arange(steps))[0][0]
    return _read(both, (t1 - 1, t2 - 1), pairs)


def _diagonals(t1: int, t2: int) -> np.ndarray:
    """All cells, diagonal after diagonal, each from its first cell on; shape (t1 t2, 2)."""
    s1, s2 = np.divmod(np.arange(t1 * t2), t2)
    order = np.lexsort((s1, s1 - s2))
    return np.stack([s1[order], s2[order]], axis=1)


def _exists(side: Side, s: Array) -> Bool[Array, " n"]:
    n = side.layers[0].drive.shape[1]
    return jnp.ones(n, bool) if side.lengths is None else s < side.lengths


def _count(side: Side) -> Float[Array, " n"]:
    t, n = side.layers[0].drive.shape
    lengths = jnp.full(n, t) if side.lengths is None else side.lengths
    return lengths.astype(side.layers[0].drive.dtype)


def _sum(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    return one[:, None] + two[None, :]


def _begin(both: Both, where: Where) -> AllPairs:
    """The recursion before cell (s1, s2), where one of the two sequences has its first step.

    States of different age are uncorrelated, so their distance is the sum of the variances, and
    likewise for the tangent kernel. Initial states are equal if they are shared, or if they are
    one sequence's own.
    """
    (s1, s2), state = where, both.rnn.initial_state
    pairs = []
    for layer1, layer2 in zip(both.one.layers, both.two.layers, strict=True):
        distance = _sum(layer1.before[s1], layer2.before[s2])
        if state == "shared" or (state == "independent" and both.same is not None):
            n1, n2 = distance.shape
            first1 = s1 == (jnp.zeros(n1, int) if both.one.start is None else both.one.start)
            first2 = s2 == (jnp.zeros(n2, int) if both.two.start is None else both.two.start)
            equal = first1[:, None] & first2[None, :]
            distance = jnp.where(equal if state == "shared" else equal & both.same, 0, distance)
        pairs.append(Pairs(distance, _sum(layer1.back_before[s1], layer2.back_before[s2])))
    return tuple(pairs)


def _restart(both: Both, where: Where, pairs: AllPairs) -> AllPairs:
    """Begin anew at the pairs for which this cell is the first with two existing steps."""
    fresh1 = where[0] <= (0 if both.one.start is None else both.one.start[:, None])
    fresh2 = where[1] <= (0 if both.two.start is None else both.two.start[None, :])
    begun = _begin(both, where)
    return jax.tree.map(lambda new, old: jnp.where(fresh1 | fresh2, new, old), begun, pairs)


def _advance(
    both: Both, where: Where, pairs: AllPairs, drive: Float[Array, "n1 n2"]
) -> tuple[AllPairs, AllPairs]:
    """One step of the recursion, from before a cell to behind it; ``drive`` is dist(tokens).

    Returns dist(L), dist(T) of the pre-activations and dist(K), dist(B) of the states, by layer.
    """
    rnn, scales, (s1, s2) = both.rnn, both.scales, where
    below = None
    inside, behind = [], []
    for side1, side2, old in zip(both.one.layers, both.two.layers, pairs, strict=True):
        layer1 = jax.tree.map(lambda v: v[s1], side1)
        layer2 = jax.tree.map(lambda v: v[s2], side2)
        recurrent = scales.w2 * old.state
        distance = recurrent + drive
        tangent = scales.w2 * old.tangent
        tangent = tangent + _trained(rnn, recurrent, drive, jnp.zeros_like(drive))
        if below is not None:
            tangent = tangent + scales.u2 * below
        inside.append(Pairs(distance, tangent))
        state, slope = rnn.phi.pair(
            jax.tree.map(lambda v: v[..., :, None], layer1.marginal),
            jax.tree.map(lambda v: v[..., None, :], layer2.marginal),
            distance,
        )
        total = _sum(layer1.tangent, layer2.tangent)
        if isinstance(rnn.phi.slope, float):
            back = slope * ((total - tangent) / 2) + rnn.phi.slope * tangent
        else:
            uneven = _sum(layer1.slope, -layer2.slope) * _sum(layer1.tangent, -layer2.tangent)
            slopes = _sum(layer1.slope, layer2.slope)
            back = (slope * (total - tangent) + slopes * tangent + uneven) / 2
        behind.append(Pairs(state, back))
        drive, below = scales.u2 * state, back
    return tuple(inside), tuple(behind)


def _token_distance(both: Both, where: Where) -> Float[Array, "n1 n2"]:
    """Squared distances of the tokens from their differences, CHUNK entries in one pass.

    Norms minus twice a product would lose the digits that tell near-duplicates apart.
    """
    one, two = both.one, both.two
    chunks = len(one.tokens[0]) // len(one.layers[0].drive)

    def chunk(c: Any) -> Array:
        at1, at2 = (s * chunks + c for s in where)
        squares = [
            (v1[at1][:, None] - v2[at2][None, :]) ** 2
            for v1, v2 in zip(one.tokens, two.tokens, strict=True)
        ]
        return sum(squares[1:], squares[0])

    if chunks == 1:
        return chunk(0)
    return jax.lax.fori_loop(1, chunks, lambda c, total: total + chunk(c), chunk(0))


def _read(both: Both, where: Where, pairs: AllPairs) -> Kernel:
    """What an output at a cell sees: v^2 (K + B) and v^2 K."""
    top1, top2 = (side.layers[-1] for side in (both.one, both.two))
    after1, back1 = top1.after[where[0]], top1.back[where[0]]
    after2, back2 = top2.after[where[1]], top2.back[where[1]]
    top, half = pairs[-1], both.scales.v2 / 2
    nngp = _sum(after1, after2) - top.state
    if "V" in both.rnn.trainable:
        ntk = _sum(after1 + back1, after2 + back2) - (top.state + top.tangent)
    else:
        ntk = _sum(back1, back2) - top.tangent
    return Kernel(half * ntk, half * nngp)


def _reverse_steps(kernel: Kernel, lengths1: Array | None, lengths2: Array | None) -> Kernel:
    """Back to forward time: the reading direction of a "sequence" kernel's steps turned round."""

    def turn(k: Array) -> Array:
        n1, t1, n2, t2 = k.shape
        k = sequences.reverse(k.reshape(n1, t1, n2 * t2), lengths1).reshape(k.shape)
        k = k.transpose(2, 3, 0, 1)
        return (
            sequences.reverse(k.reshape(n2, t2, n1 * t1), lengths2)
            .reshape(k.shape)
            .transpose(2, 3, 0, 1)
        )

    return jax.tree.map(turn, kernel)


def _check_range(side: Side) -> None:
    """Raise where the recursion has left the range of the dtype, naming the step."""
    info = np.finfo(side.layers[0].drive.dtype)
    for number, layer in enumerate(side.layers, 1):
        tangent = np.asarray(layer.tangent)
        a, drive, before = (np.asarray(v) for v in (layer.variance, layer.drive, layer.before))
        with np.errstate(invalid="ignore"):
            large = ~((a < info.max / 64) & (np.abs(tangent) < info.max / 64))
            small = (a < info.tiny / info.eps) & ((drive > 0) | (before > 0))
        for bad, word in ((large, "overflows"), (small, "underflows")):
            if bad.any():
                s, i = np.argwhere(bad)[0]
                s -= 0 if side.start is None else int(side.start[i])
                raise FloatingPointError(
                    f"The kernel {word} {info.dtype} at step {s} of sequence {i}, layer {number}: "
                    f"variance {a[tuple(np.argwhere(bad)[0])]:.3g}. Signals grow or shrink by a "
                    f"constant factor a step: choose w_std so that w_std^2 E phi(u)^2 stays near "
                    f"E u^2 (sqrt(2) for relu), rescale the tokens, use shorter sequences"
                    f"{', or float64' if info.bits == 32 else ''}."
                )
