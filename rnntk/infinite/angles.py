"""Angles of kernels: of a sum, of a product, of tokens.

The angle of a kernel M is ang(M)_ij = 2 (sqrt(M_ii M_jj) - M_ij): small for nearly parallel
sequences, between which the kernel itself has lost the digits that tell them apart.
docs/theory/infinite.md derives the formulas. A root is sqrt(M_ii), a vector over sequences.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Entry c * TOKEN_CHUNK + k of the token at step s, of C chunks in all, is row s * C + c of array k.
Tokens = tuple[Float[Array, "_ _"], ...]


class Part(NamedTuple):
    """A summand of a kernel: its angle, and the roots of its diagonals."""

    ang: Float[Array, "n1 n2"]
    root1: Float[Array, " n1"]
    root2: Float[Array, " n2"]


def outer(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    """Products of all pairs of entries."""
    return one[:, None] * two[None, :]


def _gap2(one: Array, two: Array) -> Float[Array, "n1 n2"]:
    return jnp.square(one[:, None] - two[None, :])


def ang_of_sum(
    parts: Sequence[Part], bias2: Any, root1: Array, root2: Array
) -> Float[Array, "n1 n2"]:
    """ang of a sum of kernels, whose parts are in unequal proportions.

    For the roots p, q, ... of the parts, and a constant part b^2, None if there is none, the sum
    of angles lacks 2 (|(p, q, b)| |(p', q', b)| - <(p, q, b), (p', q', b)>), which by Lagrange's
    identity is made of squares; ``root1`` and ``root2`` are |(p, q, b)|.
    """
    whole = outer(root1, root2)
    for part in parts:
        whole = whole + outer(part.root1, part.root2)
    if bias2 is not None:
        whole = whole + bias2
    inverse = 1 / jnp.where(whole > 0, whole, 1)
    angle, uneven = [part.ang for part in parts], []
    for p, q in combinations(parts, 2):
        difference = outer(p.root1, q.root2) - outer(q.root1, p.root2)
        uneven.append(difference * (difference * inverse))
    if bias2 is not None:
        uneven += [_gap2(part.root1, part.root2) * (bias2 * inverse) for part in parts]
    return sum(angle[1:], angle[0]) + 2 * sum(uneven[1:], uneven[0]) if uneven else angle[0]


def ang_of_product(
    ang_M: Array, roots_M: Array | float, ang_N: Array, roots_N: Array
) -> Float[Array, "n1 n2"]:
    """ang of the entrywise product of M and N, whose roots come as outer products.

    2 (mu nu - M N) with mu and nu the roots, and each factor M = mu - ang(M)/2 through its angle.
    """
    return ang_M * (roots_N - ang_N / 2) + roots_M * ang_N


def ang_of_tokens(
    tokens: tuple[Tokens, Tokens],
    directions: tuple[Tokens, Tokens],
    roots: tuple[Array, Array],
    cell: tuple[Any, Any],
    steps: int,
) -> Float[Array, "n1 n2"]:
    """From differences of tokens of similar norm, else of their directions.

    Norms minus twice a product would lose the digits that tell near-duplicates apart, and the
    distance minus the norms' part those that tell nearly parallel tokens apart.
    """
    distance, gap2 = _squared_distance(tokens, cell, steps), _gap2(*roots)
    turned = outer(*roots) * _squared_distance(directions, cell, steps)
    return jnp.where(2 * gap2 <= distance, distance - gap2, turned)


def _squared_distance(
    vectors: tuple[Tokens, Tokens], cell: tuple[Any, Any], steps: int
) -> Float[Array, "n1 n2"]:
    """Sum of squared differences of the entries, a chunk of them in one pass."""
    chunks = len(vectors[0][0]) // steps

    def chunk(c: Any) -> Array:
        at1, at2 = (s * chunks + c for s in cell)
        squares = [_gap2(v1[at1], v2[at2]) for v1, v2 in zip(*vectors, strict=True)]
        return sum(squares[1:], squares[0])

    if chunks == 1:
        return chunk(0)
    return jax.lax.fori_loop(1, chunks, lambda c, total: total + chunk(c), chunk(0))
