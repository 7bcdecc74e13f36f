"""The NTK and NNGP kernels of Elman networks of infinite width.

A *cell* (s, s') pairs step s of one sequence with step s' of another. The cells of one diagonal
s - s' form a recursion of their own; the "last" readout needs the diagonal through the ends, the
other readouts all of them.

Kernels are carried as squared distances, dist(M)_ij = M_ii + M_jj - 2 M_ij, and those of the
covariances L and K without the part that the norms make, ang(M)_ij = dist(M)_ij - (sqrt(M_ii) -
sqrt(M_jj))^2 = 2 (sqrt(M_ii M_jj) - M_ij): between nearly equal, or nearly parallel, sequences
the kernel itself has lost the digits that tell them apart. With a the variance of the
pre-activations, T their tangent kernel, K the states' covariance and B = Kd T, one step of a
layer is

    ang(L) = w^2 ang(K) + u^2 ang(tokens) + (part that unequal proportions make, `_join`),
    a = w^2 K_ii + u^2 |token|^2 + b^2,
    dist(T) = (trained parts of dist(L)) + w^2 dist(B),      T_ii likewise,
    ang(K), dist(Kd) = moments of phi at (a_i, a_j, ang(L)),
    dist(B) = (dist(Kd) (T_ii + T_jj - dist(T)) + (Kd_ii + Kd_jj) dist(T)
               + (Kd_ii - Kd_jj) (T_ii - T_jj)) / 2.

What depends on one sequence alone is computed beforehand. In a deeper layer the tokens are the
states below, and their u^2 dist(B) adds to dist(T). Derivation: docs/theory/infinite.md.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float, Int

from rnntk import sequences, single, tiles
from rnntk.activations import check_accuracy
from rnntk.elman import ElmanRNN, check_stds
from rnntk.kernel import Kernel, symmetric
from rnntk.single import Layer, Scales, Side, prepare, squared_scales, trained


class Pairs(NamedTuple):
    """A layer's recursion at one cell, over all pairs of sequences."""

    state: Float[Array, "n1 n2"]  # ang(K); inside a step, ang(L)
    tangent: Float[Array, "n1 n2"]  # dist(B); inside a step, dist(T)


AllPairs = tuple[Pairs, ...]  # one for each layer
Packed = tuple[Complex[Array, "n1 n2"], ...]  # the same in complex arrays, to loop over
Where = tuple[Any, Any]  # a cell (s, s'), of numbers or tracers


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
        FloatingPointError: where the recursion leaves the range of the dtype, naming the step. In
            ``jit``, ``grad`` and ``vmap`` neither this nor variances beyond 10 (tanh, ...) raise.

    Example:
        >>> import jax, jax.numpy as jnp, rnntk
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 3))
        >>> kernel = rnntk.infinite_kernel(rnntk.ElmanRNN(), x)
        >>> kernel.ntk.shape, bool((kernel.ntk == kernel.ntk.T).all())
        ((5, 5), True)
    """
    check_stds(rnn)
    x1, lengths1 = sequences.check_batch(x1, lengths1, "1")
    x2, lengths2 = sequences.check_second(x1, x2, lengths2)
    one = _prepare(rnn, x1, lengths1)
    two = one if x2 is None else _prepare(rnn, x2, lengths2)
    if not all(map(sequences.is_concrete, jax.tree.leaves((rnn, one, two)))):
        return _compiled(None)(rnn, one, two, mirror=x2 is None)
    for side in (*one, *two):
        single.check_range(side)
        for layer in side.layers:
            check_accuracy(rnn.phi, np.square(layer.std))
    (t1, n1), (t2, n2) = (sides[0].layers[0].drive.shape for sides in (one, two))
    shape = (n1, t1, n2, t2) if rnn.readout == "sequence" else (n1, n2)
    block = partial(_compiled(next(iter(x1.devices())).platform), rnn)
    return tiles.assemble(block, one, two, shape, x1.dtype, mirror=x2 is None)


@lru_cache
def _compiled(platform: str | None) -> Callable[..., Kernel]:
    """``_block`` compiled for a platform; None where it becomes part of a larger program."""
    # XLA defaults to half of the width of AVX-512 registers, and to splitting every pass among all
    # cores, though the tiles keep them busy. Measured, these cost a fifth and a half more.
    splitter = "cpu-parallel-task-assigner"
    options = {"xla_cpu_prefer_vector_width": 512, "xla_disable_hlo_passes": splitter}
    on_cpu = options if platform == "cpu" else None
    return jax.jit(_block, static_argnames=("mirror",), compiler_options=on_cpu)


class Preactivation(NamedTuple):
    """The pre-activations u of one layer at p points, each a step of a sequence, and what follows.

    Attributes:
        std: sqrt(E u_i^2).
        angle: 2 (std_i std_j - E u_i u_j).
        tangent: T, the tangent kernel of u over the trained groups among W, U and b.
        covariance: K = E phi(u_i) phi(u_j).
        slope: Kd = E phi'(u_i) phi'(u_j).
    """

    std: Float[Array, " p"]
    angle: Float[Array, "p p"]
    tangent: Float[Array, "p p"]
    covariance: Float[Array, "p p"]
    slope: Float[Array, "p p"]


def preactivations(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> Iterator[tuple[Preactivation, ...]]:
    """All layers step by step, each sequence at the same step: what the "last" readout needs."""
    both = _with_itself(rnn, x)
    pairs = _begin(both, (0, 0))
    for s in range(x.shape[1]):
        pairs, layers = _observed(both, pairs, jnp.asarray(s))
        yield layers


@jax.jit
def preactivation_grid(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> tuple[Preactivation, ...]:
    """All layers at all steps of all sequences together; point s n + i is step s of sequence i."""
    both, (n, t, _) = _with_itself(rnn, x), x.shape
    cells = _diagonals(t, t)

    def visit(pairs: AllPairs, cell: Array) -> tuple[AllPairs, tuple[Preactivation, ...]]:
        return _observe(both, (cell[0], cell[1]), _restart(both, (cell[0], cell[1]), pairs))

    layers = jax.lax.scan(visit, _begin(both, (0, 0)), jnp.asarray(cells))[1]
    order = np.argsort(cells[:, 0] * t + cells[:, 1])

    def arrange(v: Array) -> Array:
        square = v[order].reshape(t, t, n, n).transpose(0, 2, 1, 3).reshape(t * n, t * n)
        return symmetric(square)

    return tuple(
        Preactivation(side.std.reshape(-1), *(arrange(v) for v in layer[1:]))
        for side, layer in zip(both.one.layers, layers, strict=True)
    )


@jax.jit
def _with_itself(rnn: ElmanRNN, x: Float[Array, "n t d"]) -> Both:
    side = prepare(rnn, x, None)
    return Both(rnn, squared_scales(rnn, x.dtype), side, side, jnp.eye(len(x), dtype=bool))


@jax.jit
def _observed(
    both: Both, pairs: AllPairs, s: Int[Array, ""]
) -> tuple[AllPairs, tuple[Preactivation, ...]]:
    pairs, layers = _observe(both, (s, s), pairs)
    return pairs, tuple(
        Preactivation(layer.std, *(symmetric(v) for v in layer[1:])) for layer in layers
    )


def _observe(
    both: Both, where: Where, pairs: AllPairs
) -> tuple[AllPairs, tuple[Preactivation, ...]]:
    """One step of the recursion, with what it saw on the way."""
    inside, behind = _advance(both, where, pairs)
    layers = []
    for side1, side2, into, out in zip(
        both.one.layers, both.two.layers, inside, behind, strict=True
    ):
        one = jax.tree.map(lambda v: v[where[0]], side1)
        two = jax.tree.map(lambda v: v[where[1]], side2)
        slopes = _moments(both.rnn, one, two, into.state)[1]
        layers.append(
            Preactivation(
                one.std,
                into.state,
                (_sum(one.tangent, two.tangent) - into.tangent) / 2,
                _product(one.after, two.after) - out.state / 2,
                (_sum(one.slope, two.slope) - slopes) / 2,
            )
        )
    return behind, tuple(layers)


@jax.jit
def _prepare(rnn: ElmanRNN, x: Array, lengths: Array | None) -> tuple[Side, ...]:
    """One side for each direction of reading."""
    forward = prepare(rnn, x, lengths)
    if not rnn.bidirectional:
        return (forward,)
    return forward, prepare(rnn, sequences.reverse(x, lengths), lengths)


def _block(rnn: ElmanRNN, one: tuple[Side, ...], two: tuple[Side, ...], mirror: bool) -> Kernel:
    """The kernel of all pairs at once; ``mirror`` says that both sides are the same sequences."""
    n, dtype = one[0].layers[0].drive.shape[1], one[0].layers[0].drive.dtype
    same = jnp.eye(n, dtype=bool) if mirror else None
    # On CPU, XLA does not vectorize passes that read one array both as rows and as columns.
    two = jax.lax.optimization_barrier(two)
    kernels = [
        pair_kernel(Both(rnn, squared_scales(rnn, dtype), side1, side2, same))
        for side1, side2 in zip(one, two, strict=True)
    ]
    if rnn.bidirectional and rnn.readout == "sequence":
        kernels[1] = _reverse_steps(kernels[1], one[1].lengths, two[1].lengths)
    total = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *kernels)
    return jax.tree.map(symmetric, total) if mirror else total


def pair_kernel(both: Both) -> Kernel:
    """Kernel of all pairs of sequences of the two sides."""
    t1, t2 = len(both.one.layers[0].drive), len(both.two.layers[0].drive)
    if both.rnn.readout == "last":
        return _last(both, t1, t2)
    cells = _diagonals(t1, t2)

    def visit(packed: Packed, cell: Array) -> tuple[Packed, Kernel]:
        where = cell[0], cell[1]
        packed = _pack(_advance(both, where, _restart(both, where, _unpack(packed)))[1])
        there = (
            single.exists(both.one, cell[0])[:, None] & single.exists(both.two, cell[1])[None, :]
        )
        kernel = _read(both, where, _unpack(packed))
        return packed, jax.tree.map(lambda k: jnp.where(there, k, 0), kernel)

    start = _pack(_begin(both, (0, 0)))
    if both.rnn.readout == "sequence":
        kernel = jax.lax.scan(visit, start, jnp.asarray(cells))[1]
        order = np.argsort(cells[:, 0] * t2 + cells[:, 1])
        return jax.tree.map(
            lambda k: k[order].reshape(t1, t2, *k.shape[1:]).transpose(2, 0, 3, 1), kernel
        )

    def add(carry: tuple[Packed, Array], cell: Array) -> tuple[tuple[Packed, Array], None]:
        packed, kernel = visit(carry[0], cell)
        return (packed, carry[1] + jax.lax.complex(*kernel)), None

    total = jax.lax.scan(add, (start, jnp.zeros_like(start[0])), jnp.asarray(cells))[0][1]
    counts = single.count(both.one)[:, None] * single.count(both.two)[None, :]
    return Kernel(jnp.real(total) / counts, jnp.imag(total) / counts)


def _last(both: Both, t1: int, t2: int) -> Kernel:
    """The diagonal through both ends."""
    steps = min(t1, t2)
    first = t1 - steps, t2 - steps
    ragged = both.one.start is not None or both.two.start is not None

    # Adding the next tokens here, not at the head of the next step, makes two short chains of
    # operations out of a long one. Without all groups the sum's parts are needed, too.
    entered = {"W", "U", "b"} <= set(both.rnn.trainable)

    def cell(s: Any) -> Where:
        return s + first[0], s + first[1]

    def enter(pairs: AllPairs, where: Where) -> AllPairs:
        if not entered:
            return pairs
        recurrent, token, joined = _parts(both, where, pairs[0])
        return pairs[0]._replace(state=recurrent + token + joined), *pairs[1:]

    def step(packed: Packed, s: Array) -> tuple[Packed, None]:
        behind = pairs = _advance(both, cell(s), _unpack(packed), entered)[1]
        upcoming = cell(jnp.minimum(s + 1, steps - 1))
        if ragged:
            pairs = _restart(both, upcoming, pairs)
        pairs = enter(pairs, upcoming)
        return _pack(jax.tree.map(partial(jnp.where, s + 1 < steps), pairs, behind)), None

    start = _pack(enter(_begin(both, first), first))
    packed = jax.lax.scan(step, start, jnp.arange(steps))[0]
    return _read(both, (t1 - 1, t2 - 1), _unpack(packed))


def _parts(both: Both, where: Where, pairs: Pairs) -> tuple[Array, Array, Array]:
    """What ang(L) of the first layer is the sum of: states, tokens, unequal proportions."""
    layer1 = jax.tree.map(lambda v: v[where[0]], both.one.layers[0])
    layer2 = jax.tree.map(lambda v: v[where[1]], both.two.layers[0])
    joined = _join(both.rnn, both.scales, layer1, layer2)
    return both.scales.w2 * pairs.state, _token_angle(both, where), joined


def _pack(pairs: Sequence[tuple[Array, Array]]) -> Packed:
    """Each two arrays as one, which XLA computes in one pass: it shares no work between two."""
    return tuple(jax.lax.complex(*two) for two in pairs)


def _unpack(packed: Packed) -> AllPairs:
    return tuple(Pairs(jnp.real(both), jnp.imag(both)) for both in packed)


def _diagonals(t1: int, t2: int) -> np.ndarray:
    """All cells, diagonal after diagonal, each from its first cell on; shape (t1 t2, 2)."""
    s1, s2 = np.divmod(np.arange(t1 * t2), t2)
    order = np.lexsort((s1, s1 - s2))
    return np.stack([s1[order], s2[order]], axis=1)


def _sum(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    return one[:, None] + two[None, :]


def _product(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    return one[:, None] * two[None, :]


def _gap2(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    return jnp.square(one[:, None] - two[None, :])


def _begin(both: Both, where: Where) -> AllPairs:
    """The recursion before cell (s1, s2), where one of the two sequences has its first step.

    States of different age are uncorrelated, and so are their gradients. Initial states are equal
    if they are shared, or if they are one sequence's own.
    """
    (s1, s2), state = where, both.rnn.initial_state
    pairs = []
    for layer1, layer2 in zip(both.one.layers, both.two.layers, strict=True):
        angle = 2 * _product(layer1.before[s1], layer2.before[s2])
        if state == "shared" or (state == "independent" and both.same is not None):
            n1, n2 = angle.shape
            first1 = s1 == (jnp.zeros(n1, int) if both.one.start is None else both.one.start)
            first2 = s2 == (jnp.zeros(n2, int) if both.two.start is None else both.two.start)
            equal = first1[:, None] & first2[None, :]
            angle = jnp.where(equal if state == "shared" else equal & both.same, 0, angle)
        pairs.append(Pairs(angle, _sum(layer1.back_before[s1], layer2.back_before[s2])))
    return tuple(pairs)


def _restart(both: Both, where: Where, pairs: AllPairs) -> AllPairs:
    """Begin anew at the pairs for which this cell is the first with two existing steps."""
    fresh1 = where[0] <= (0 if both.one.start is None else both.one.start[:, None])
    fresh2 = where[1] <= (0 if both.two.start is None else both.two.start[None, :])
    begun = _begin(both, where)
    return jax.tree.map(lambda new, old: jnp.where(fresh1 | fresh2, new, old), begun, pairs)


def _advance(
    both: Both, where: Where, pairs: AllPairs, entered: bool = False
) -> tuple[AllPairs, AllPairs]:
    """One step of the recursion, from before a cell to behind it.

    If it has ``entered`` the cell, all groups are trained and the first state is ang(L) already.
    Returns ang(L), dist(T) of the pre-activations and ang(K), dist(B) of the states, by layer.
    """
    rnn, scales, (s1, s2) = both.rnn, both.scales, where
    inside: list[Pairs] = []
    behind: list[Pairs] = []
    for side1, side2, old in zip(both.one.layers, both.two.layers, pairs, strict=True):
        layer1 = jax.tree.map(lambda v: v[s1], side1)
        layer2 = jax.tree.map(lambda v: v[s2], side2)
        if behind:
            recurrent, token = scales.w2 * old.state, scales.u2 * behind[-1].state
            angle = recurrent + token + _join(rnn, scales, layer1, layer2)
        elif entered:
            angle = old.state
        else:
            recurrent, token, joined = _parts(both, where, old)
            angle = recurrent + token + joined
        distance = angle + _gap2(layer1.std, layer2.std)
        tangent = scales.w2 * old.tangent
        if {"W", "U", "b"} <= set(rnn.trainable):
            tangent = tangent + distance
        else:
            recurrent = recurrent + scales.w2 * _gap2(layer1.before, layer2.before)
            token = token + _gap2(layer1.drive, layer2.drive)
            tangent = tangent + trained(rnn, recurrent, token, jnp.zeros_like(token))
        if behind:
            tangent = tangent + scales.u2 * behind[-1].tangent
        inside.append(Pairs(angle, tangent))
        state, slope = _moments(rnn, layer1, layer2, angle)
        if not rnn.phi.homogeneous:
            state = jnp.maximum(state - _gap2(layer1.after, layer2.after), 0)
        total = _sum(layer1.tangent, layer2.tangent)
        if isinstance(rnn.phi.slope, float):
            back = slope * ((total - tangent) / 2) + rnn.phi.slope * tangent
        else:
            uneven = _sum(layer1.slope, -layer2.slope) * _sum(layer1.tangent, -layer2.tangent)
            slopes = _sum(layer1.slope, layer2.slope)
            back = (slope * (total - tangent) + slopes * tangent + uneven) / 2
        behind.append(Pairs(state, back))
    return tuple(inside), tuple(behind)


def _moments(rnn: ElmanRNN, one: Layer, two: Layer, angle: Array) -> tuple[Array, Array]:
    """Squared distances of phi (its angular part, if homogeneous) and of phi'."""
    return rnn.phi.pair(
        jax.tree.map(lambda v: v[..., :, None], one.marginal),
        jax.tree.map(lambda v: v[..., None, :], two.marginal),
        angle if rnn.phi.homogeneous else angle + _gap2(one.std, two.std),
    )


def _join(rnn: ElmanRNN, scales: Scales, one: Layer, two: Layer) -> Float[Array, "n1 n2"]:
    """ang(L) less the angles of its parts: state, token and bias in unequal proportions.

    For the norms p, q, b of the parts, 2 (|(p, q, b)| |(p', q', b')| - <(p, q, b), (p', q', b')>)
    by Lagrange's identity, a sum of squares.
    """
    w = jnp.asarray(rnn.w_std, one.std.dtype)
    p1, p2, q1, q2 = w * one.before, w * two.before, one.drive, two.drive
    squares = jnp.square(_product(p1, q2) - _product(q1, p2))
    squares = squares + scales.b2 * (_gap2(p1, p2) + _gap2(q1, q2))
    whole = _product(one.std, two.std) + _product(p1, p2) + _product(q1, q2) + scales.b2
    return 2 * squares / jnp.where(whole > 0, whole, 1)


def _token_angle(both: Both, where: Where) -> Float[Array, "n1 n2"]:
    """ang(tokens), from differences of tokens of similar norm, else of their directions.

    Norms minus twice a product would lose the digits that tell near-duplicates apart, and the
    distance minus the norms' part those that tell nearly parallel tokens apart.
    """
    one, two = both.one, both.two
    norm1, norm2 = one.layers[0].drive[where[0]], two.layers[0].drive[where[1]]
    distance, gap2 = _squared_distance(both, one.tokens, two.tokens, where), _gap2(norm1, norm2)
    turned = _product(norm1, norm2) * _squared_distance(both, one.directions, two.directions, where)
    return jnp.where(2 * gap2 <= distance, distance - gap2, turned)


def _squared_distance(
    both: Both, one: tuple[Array, ...], two: tuple[Array, ...], where: Where
) -> Float[Array, "n1 n2"]:
    """Sum of squared differences of the entries, CHUNK of them in one pass."""
    chunks = len(one[0]) // len(both.one.layers[0].drive)

    def chunk(c: Any) -> Array:
        at1, at2 = (s * chunks + c for s in where)
        squares = [_gap2(v1[at1], v2[at2]) for v1, v2 in zip(one, two, strict=True)]
        return sum(squares[1:], squares[0])

    if chunks == 1:
        return chunk(0)
    return jax.lax.fori_loop(1, chunks, lambda c, total: total + chunk(c), chunk(0))


def _read(both: Both, where: Where, pairs: AllPairs) -> Kernel:
    """What an output at a cell sees: v^2 (K + B) and v^2 K."""
    top1, top2 = (side.layers[-1] for side in (both.one, both.two))
    after1, back1 = top1.variance[where[0]], top1.back[where[0]]
    after2, back2 = top2.variance[where[1]], top2.back[where[1]]
    top, half = pairs[-1], both.scales.v2 / 2
    distance = top.state + _gap2(top1.after[where[0]], top2.after[where[1]])
    nngp = _sum(after1, after2) - distance
    if "V" in both.rnn.trainable:
        ntk = _sum(after1 + back1, after2 + back2) - (distance + top.tangent)
    else:
        ntk = _sum(back1, back2) - top.tangent
    return Kernel(half * ntk, half * nngp)


def _reverse_steps(kernel: Kernel, lengths1: Array | None, lengths2: Array | None) -> Kernel:
    """Back to forward time: the reading direction of a "sequence" kernel's steps turned round."""

    def turn(k: Array) -> Array:
        n1, t1, n2, t2 = k.shape
        k = sequences.reverse(k.reshape(n1, t1, n2 * t2), lengths1)
        k = k.reshape(n1, t1, n2, t2).transpose(2, 3, 0, 1).reshape(n2, t2, n1 * t1)
        return sequences.reverse(k, lengths2).reshape(n2, t2, n1, t1).transpose(2, 3, 0, 1)

    return jax.tree.map(turn, kernel)
