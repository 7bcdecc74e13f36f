"""The NTK and NNGP kernels of Elman networks of infinite width.

A *cell* (s, s') pairs step s of one sequence with step s' of another. The cells of one diagonal
s - s' form a recursion of their own; the "last" readout needs the diagonal through the ends, the
other readouts all of them.

Kernels are carried as angles, ang(M)_ij = 2 (sqrt(M_ii M_jj) - M_ij): between nearly equal, or
nearly parallel, sequences the kernel itself has lost the digits that tell them apart. With a the
variance of the pre-activations, T their tangent kernel, K the states' covariance and B = Kd T, one
step of a layer is

    ang(L) = w^2 ang(K) + u^2 ang(tokens) + (part that unequal proportions make, `_sum_of`),
    a = w^2 K_ii + u^2 |token|^2 + b^2,
    ang(T) = (trained parts of ang(L)) + w^2 ang(B) + (again),      T_ii likewise,
    ang(K), ang(Kd) = moments of phi at (a_i, a_j, ang(L)),
    ang(B) = sqrt(Kd_ii Kd_jj) ang(T) + ang(Kd) (sqrt(T_ii T_jj) - ang(T)/2).

What depends on one sequence alone is computed beforehand. In a deeper layer the tokens are the
states below, and their u^2 B adds to T. Derivation: docs/theory/infinite.md.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float, Int

from rnntk import checks, sequences
from rnntk.activations.accuracy import check_accuracy
from rnntk.infinite import marginals
from rnntk.infinite.marginals import Layer, Scales, Side, prepare, squared_scales
from rnntk.kernel import Kernel, symmetric
from rnntk.network.elman import STDS, ElmanRNN
from rnntk.tiling import tiles


class Pairs(NamedTuple):
    """A layer's recursion at one cell, over all pairs of sequences."""

    state: Float[Array, "n1 n2"]  # ang(K); inside a step, ang(L)
    tangent: Float[Array, "n1 n2"]  # ang(B); inside a step, ang(T)


class Part(NamedTuple):
    """A summand of a kernel: its angle, and the square roots of its diagonals."""

    angle: Float[Array, "n1 n2"]
    norm1: Float[Array, " n1"]
    norm2: Float[Array, " n2"]


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
    "last" readout and n1 n2 t1 t2 for the others. Beside the result the work space is a few tiles,
    and what is known of each token alone: d and about ten numbers, and for activations without
    closed forms their series' terms, up to 2.6 KB (tanh, float64).

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
    checks.check_single(rnn, STDS)
    x1, lengths1 = sequences.check_batch(x1, lengths1, "1")
    x2, lengths2 = sequences.check_second(x1, x2, lengths2)
    one = _prepare(rnn, x1, lengths1)
    two = one if x2 is None else _prepare(rnn, x2, lengths2)
    if not all(map(sequences.is_concrete, jax.tree.leaves((rnn, one, two)))):
        return _compiled(None)(rnn, one, two, mirror=x2 is None)
    for side in (*one, *two):
        marginals.check_range(rnn, side)
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
    cells = diagonals(t1, t2)

    def visit(packed: Packed, cell: Array) -> tuple[Packed, Kernel]:
        where = cell[0], cell[1]
        packed = _pack(advance(both, where, restart(both, where, _unpack(packed)))[1])
        there = (
            marginals.exists(both.one, cell[0])[:, None]
            & marginals.exists(both.two, cell[1])[None, :]
        )
        packed = jax.tree.map(lambda v: jnp.where(there, v, 0), packed)
        kernel = _read(both, where, _unpack(packed))
        return packed, jax.tree.map(lambda k: jnp.where(there, k, 0), kernel)

    start = _pack(begin(both, (0, 0)))
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
    counts = marginals.count(both.one)[:, None] * marginals.count(both.two)[None, :]
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
        state = _sum_of(_parts(both, where, pairs[0], 0), both.scales.b2, *_stds(both, where, 0))
        return pairs[0]._replace(state=state), *pairs[1:]

    def step(packed: Packed, s: Array) -> tuple[Packed, None]:
        behind = pairs = advance(both, cell(s), _unpack(packed), entered)[1]
        upcoming = cell(jnp.minimum(s + 1, steps - 1))
        if ragged:
            pairs = restart(both, upcoming, pairs)
        pairs = enter(pairs, upcoming)
        return _pack(jax.tree.map(partial(jnp.where, s + 1 < steps), pairs, behind)), None

    start = _pack(enter(begin(both, first), first))
    packed = jax.lax.scan(step, start, jnp.arange(steps))[0]
    return _read(both, (t1 - 1, t2 - 1), _unpack(packed))


def _parts(both: Both, where: Where, pairs: Pairs, number: int, below: Any = None) -> list[Part]:
    """What L of a layer is the sum of, bias aside: states, and tokens or the states ``below``."""
    layer1, layer2 = both.one.layers[number], both.two.layers[number]
    w, (s1, s2) = jnp.asarray(both.rnn.w_std, layer1.std.dtype), where
    token = _token_angle(both, where) if below is None else both.scales.u2 * below
    return [
        Part(both.scales.w2 * pairs.state, w * layer1.before[s1], w * layer2.before[s2]),
        Part(token, layer1.drive[s1], layer2.drive[s2]),
    ]


def _stds(both: Both, where: Where, number: int) -> tuple[Array, Array]:
    return both.one.layers[number].std[where[0]], both.two.layers[number].std[where[1]]


def _pack(pairs: Sequence[tuple[Array, Array]]) -> Packed:
    """Each two arrays as one, which XLA computes in one pass: it shares no work between two."""
    return tuple(jax.lax.complex(*two) for two in pairs)


def _unpack(packed: Packed) -> AllPairs:
    return tuple(Pairs(jnp.real(both), jnp.imag(both)) for both in packed)


def diagonals(t1: int, t2: int) -> np.ndarray:
    """All cells, diagonal after diagonal, each from its first cell on; shape (t1 t2, 2)."""
    s1, s2 = np.divmod(np.arange(t1 * t2), t2)
    order = np.lexsort((s1, s1 - s2))
    return np.stack([s1[order], s2[order]], axis=1)


def product(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    """Of all pairs of entries."""
    return one[:, None] * two[None, :]


def _gap2(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    return jnp.square(one[:, None] - two[None, :])


def begin(both: Both, where: Where) -> AllPairs:
    """The recursion before cell (s1, s2), where one of the two sequences has its first step.

    States of different age are uncorrelated, and so are their gradients. Initial states are equal
    if they are shared, or if they are one sequence's own.
    """
    (s1, s2), state = where, both.rnn.initial_state
    pairs = []
    for layer1, layer2 in zip(both.one.layers, both.two.layers, strict=True):
        angle = 2 * product(layer1.before[s1], layer2.before[s2])
        if state == "shared" or (state == "independent" and both.same is not None):
            n1, n2 = angle.shape
            first1 = s1 == (jnp.zeros(n1, int) if both.one.start is None else both.one.start)
            first2 = s2 == (jnp.zeros(n2, int) if both.two.start is None else both.two.start)
            equal = first1[:, None] & first2[None, :]
            angle = jnp.where(equal if state == "shared" else equal & both.same, 0, angle)
        back = 2 * product(layer1.back_before[s1], layer2.back_before[s2])
        pairs.append(Pairs(angle, back))
    return tuple(pairs)


def restart(both: Both, where: Where, pairs: AllPairs) -> AllPairs:
    """Begin anew at the pairs for which this cell is the first with two existing steps."""
    fresh1 = where[0] <= (0 if both.one.start is None else both.one.start[:, None])
    fresh2 = where[1] <= (0 if both.two.start is None else both.two.start[None, :])
    begun = begin(both, where)
    return jax.tree.map(lambda new, old: jnp.where(fresh1 | fresh2, new, old), begun, pairs)


def advance(
    both: Both, where: Where, pairs: AllPairs, entered: bool = False
) -> tuple[AllPairs, AllPairs]:
    """One step of the recursion, from before a cell to behind it.

    If it has ``entered`` the cell, all groups are trained and the first state is ang(L) already.
    Returns ang(L), ang(T) of the pre-activations and ang(K), ang(B) of the states, by layer.
    """
    rnn, scales, (s1, s2) = both.rnn, both.scales, where
    w, u = (jnp.asarray(std, both.one.layers[0].std.dtype) for std in (rnn.w_std, rnn.u_std))
    inside: list[Pairs] = []
    behind: list[Pairs] = []
    for number, old in enumerate(pairs):
        layer1 = jax.tree.map(lambda v: v[s1], both.one.layers[number])
        layer2 = jax.tree.map(lambda v: v[s2], both.two.layers[number])
        angle, parts = old.state, []
        if behind or not entered:
            parts = _parts(both, where, old, number, behind[-1].state if behind else None)
            angle = _sum_of(parts, scales.b2, layer1.std, layer2.std)
        back = Part(scales.w2 * old.tangent, w * layer1.back_before, w * layer2.back_before)
        own, bias2 = [Part(angle, layer1.std, layer2.std)], None
        if not {"W", "U", "b"} <= set(rnn.trainable):
            own = [part for group, part in zip("WU", parts, strict=True) if group in rnn.trainable]
            bias2 = scales.b2 if "b" in rnn.trainable else None
        own.append(back)
        if behind:
            below1, below2 = (side.layers[number - 1] for side in (both.one, both.two))
            own.append(
                Part(scales.u2 * behind[-1].tangent, u * below1.back[s1], u * below2.back[s2])
            )
        tangent = _sum_of(own, bias2, layer1.tangent, layer2.tangent)
        inside.append(Pairs(angle, tangent))
        state, slope = moments(rnn, layer1, layer2, angle)
        constant = rnn.phi.constant_slope
        slopes = product(layer1.slope, layer2.slope) if constant is None else constant
        whole = product(layer1.tangent, layer2.tangent)
        behind.append(Pairs(state, slope * (whole - tangent / 2) + slopes * tangent))
    return tuple(inside), tuple(behind)


def moments(rnn: ElmanRNN, one: Layer, two: Layer, angle: Array) -> tuple[Array, Array]:
    """The angles of K and Kd."""
    return rnn.phi.angles(one.marginal, two.marginal, angle)


def _sum_of(
    parts: Sequence[Part], bias2: Array | None, whole1: Array, whole2: Array
) -> Float[Array, "n1 n2"]:
    """ang of a sum of kernels, whose parts are in unequal proportions.

    For the norms p, q, ... of the parts, and a constant part of norm b, the angles' sum lacks
    2 (|(p, q, b)| |(p', q', b')| - <(p, q, b), (p', q', b')>), which by Lagrange's identity is
    made of squares; ``whole1`` and ``whole2`` are |(p, q, b)|.
    """
    whole = product(whole1, whole2)
    for part in parts:
        whole = whole + product(part.norm1, part.norm2)
    if bias2 is not None:
        whole = whole + bias2
    inverse = 1 / jnp.where(whole > 0, whole, 1)
    angle, uneven = [part.angle for part in parts], []
    for p, q in combinations(parts, 2):
        difference = product(p.norm1, q.norm2) - product(q.norm1, p.norm2)
        uneven.append(difference * (difference * inverse))
    if bias2 is not None:
        uneven += [_gap2(part.norm1, part.norm2) * (bias2 * inverse) for part in parts]
    return sum(angle[1:], angle[0]) + 2 * sum(uneven[1:], uneven[0]) if uneven else angle[0]


def _token_angle(both: Both, where: Where) -> Float[Array, "n1 n2"]:
    """ang(tokens), from differences of tokens of similar norm, else of their directions.

    Norms minus twice a product would lose the digits that tell near-duplicates apart, and the
    distance minus the norms' part those that tell nearly parallel tokens apart.
    """
    one, two = both.one, both.two
    norm1, norm2 = one.layers[0].drive[where[0]], two.layers[0].drive[where[1]]
    distance, gap2 = _squared_distance(both, one.tokens, two.tokens, where), _gap2(norm1, norm2)
    turned = product(norm1, norm2) * _squared_distance(both, one.directions, two.directions, where)
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
    top1, top2 = (
        jax.tree.map(lambda v, s=s: v[s], side.layers[-1])
        for side, s in zip((both.one, both.two), where, strict=True)
    )
    state = Part(pairs[-1].state, top1.after, top2.after)
    parts = [Part(pairs[-1].tangent, top1.back, top2.back)]
    if "V" in both.rnn.trainable:
        parts.append(state)
    norm1, norm2 = (
        jnp.sqrt(sum(jnp.square(norm) for norm in norms))
        for norms in zip(*(part[1:] for part in parts), strict=True)
    )
    v2 = both.scales.v2
    ntk = product(norm1, norm2) - _sum_of(parts, None, norm1, norm2) / 2
    return Kernel(v2 * ntk, v2 * (product(*state[1:]) - state.angle / 2))


def _reverse_steps(kernel: Kernel, lengths1: Array | None, lengths2: Array | None) -> Kernel:
    """Back to forward time: the reading direction of a "sequence" kernel's steps turned round."""

    def turn(k: Array) -> Array:
        n1, t1, n2, t2 = k.shape
        k = sequences.reverse(k.reshape(n1, t1, n2 * t2), lengths1)
        k = k.reshape(n1, t1, n2, t2).transpose(2, 3, 0, 1).reshape(n2, t2, n1 * t1)
        return sequences.reverse(k, lengths2).reshape(n2, t2, n1, t1).transpose(2, 3, 0, 1)

    return jax.tree.map(turn, kernel)
