"""Rigorous enclosures of smallest eigenvalues, of given matrices and of exact kernels.

:func:`certify` of a network and its data speaks of the *exact* infinite-width NTK, so that neither
the evaluation of the kernel nor that of its eigenvalue leaves a gap. docs/theory/spectrum.md has
the theorems.
"""

import json
import math
import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from rnntk import checks
from rnntk.linalg import enclosure, lanczos, matrices
from rnntk.network.elman import STDS, ElmanRNN
from rnntk.spectrum import ball_kernel

# relative width of the interval at which a kernel's precision suffices
_RTOL = 1e-6


@dataclass(frozen=True, eq=False)
class Certificate:
    """A smallest eigenvalue that provably lies in [lower, upper], and of what.

    :func:`rnntk.verification.verify` proves the enclosure anew by other means, from nothing but
    what is in here.

    Attributes:
        lower: lower end of the enclosure.
        upper: upper end of the enclosure; infinite if no precision up to ``max_bits`` gave one.
        radius: largest uncertainty of an entry of the matrix that was enclosed.
        bits: precision of the arithmetic that made the entries; 53 for a given matrix.
        method: ``"weyl"``, from the entries rounded to float64; ``"inverse"``, from an enclosure of
            the inverse matrix; ``"singular"``, two rows that are equal or one that is zero;
            ``"cholesky"``, of a given matrix.
        n: number of rows.
        data: the tokens (n, t, d), or the given matrix, in float64.
        lengths: steps of each sequence; of a given matrix, empty.
        network: of a kernel, the arguments of :class:`~rnntk.ElmanRNN`, and as ``slopes`` those of
            a piecewise linear activation below and above 0; of a given matrix, empty.
        relative: of a given matrix, up to what relative error its entries count as known.
        absolute: likewise, a further error of the matrix, in the spectral norm.
    """

    lower: float
    upper: float
    radius: float
    bits: int
    method: str
    n: int
    data: np.ndarray
    lengths: np.ndarray
    network: dict[str, Any]
    relative: float = 0.0
    absolute: float = 0.0

    def save(self, path: str | Path) -> None:
        """Write to an ``.npz`` file, without pickled objects.

        Example:
            >>> import numpy as np, rnntk, tempfile
            >>> certificate = rnntk.spectrum.certify(np.eye(2))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     certificate.save(Path(folder, "eye.npz"))
            ...     again = Certificate.load(Path(folder, "eye.npz"))
            >>> again.lower == certificate.lower
            True
        """
        rest = {k: v for k, v in asdict(self).items() if k not in ("data", "lengths")}
        text = np.array(json.dumps(rest))
        with Path(path).open("wb") as file:
            np.savez_compressed(file, certificate=text, data=self.data, lengths=self.lengths)

    @classmethod
    def load(cls, path: str | Path) -> "Certificate":
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file does not hold a certificate.
        """
        with Path(path).open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ValueError(f"{path} must hold a certificate, got a file of another kind.")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file}
        except (ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} must hold a certificate, got {error}.") from error
        if set(arrays) != {"certificate", "data", "lengths"}:
            raise ValueError(f"{path} must hold a certificate, got arrays {sorted(arrays)}.")
        rest = json.loads(str(arrays.pop("certificate")))
        wanted = {field.name for field in fields(cls)} - set(arrays)
        found = sorted(rest) if isinstance(rest, dict) else rest
        if found != sorted(wanted):
            raise ValueError(f"{path} must hold the fields {sorted(wanted)}, got {found}.")
        return cls(**rest, **arrays)


def certify(
    subject: ElmanRNN | ArrayLike,
    x: Float[ArrayLike, "n t d"] | None = None,
    *,
    lengths: Int[ArrayLike, " n"] | None = None,
    rtol: float | None = None,
    max_bits: int | None = None,
) -> Certificate:
    r"""Enclose the smallest eigenvalue of an exact infinite-width NTK, or of a given matrix.

    The kernel is that of the tokens and standard deviations as the numbers that their
    floating-point values are: ``w_std=2**0.5`` means the float64 number next to :math:`\sqrt 2`.
    Its entries are enclosed in ball arithmetic (python-flint). The first attempt rounds them to
    float64 and adds the distance (Weyl's theorem); the second encloses the inverse matrix, whose
    largest eigenvalue is accurate to many digits where the smallest one of the kernel has none.
    The precision doubles until the enclosure is narrow enough. The kernel is positive
    semidefinite, being a limit of Gram matrices, and the lower end is never below 0.

    Args:
        subject: a network of any readout, depth and direction, whose activation is named (but for
            elu) or a leaky_relu, or a symmetric floating-point matrix.
        x: tokens, for a network only.
        lengths: steps of each sequence. The matrix of the ``"sequence"`` readout has one row for
            each step that exists, sequence after sequence.
        rtol: relative width of the enclosure at which to stop, 1e-6 unless given; for a network
            only, as the entries of a given matrix have one precision.
        max_bits: precision at which to stop, 1024 unless given; likewise. A singular kernel, whose
            sequences are linearly dependent without being equal, stops here, with the lower end 0.

    Returns:
        The certificate of a kernel, or of a given matrix as
        :func:`rnntk.spectrum.min_eigenvalue` encloses it.

    Raises:
        ImportError: without python-flint, for a network.
        ValueError: for another activation, bad tokens, a bad matrix, or tolerances out of range.
        TypeError: for tokens or a matrix that are not floating point, or what goes with
            a network given with a matrix.

    Example:
        >>> import numpy as np, rnntk
        >>> x = np.random.default_rng(0).standard_normal((5, 4, 3))
        >>> certificate = rnntk.spectrum.certify(rnntk.ElmanRNN(), x)
        >>> 0 < certificate.lower < certificate.upper < (1 + 1e-6) * certificate.lower
        True
    """
    if not isinstance(subject, ElmanRNN):
        given = {"x": x, "lengths": lengths, "rtol": rtol, "max_bits": max_bits}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise TypeError(f"A matrix is certified as it stands, without {', '.join(wrong)}.")
        return _certify_matrix(subject)
    if x is None:
        raise TypeError("certify of a network needs x, its tokens (n, t, d).")
    rtol = _RTOL if rtol is None else rtol
    max_bits = ball_kernel.MAX_BITS if max_bits is None else max_bits
    checks.check_positive("rtol", rtol, most=1.0)
    if max_bits < ball_kernel.FIRST_BITS:
        raise ValueError(f"max_bits must be at least {ball_kernel.FIRST_BITS}, got {max_bits}.")
    ball_kernel.check_supported(subject)
    ball_kernel.flint()
    # float64 tokens are to be looked at as they are, whatever the process computes in
    with jax.enable_x64(True):
        checked = checks.check_batch(x, lengths)[1]
    tokens = np.array(x, np.float64)
    steps = np.full(len(tokens), tokens.shape[1]) if checked is None else np.array(checked, int)
    for row, length in zip(tokens, steps, strict=True):
        row[length:] = 0
    return _certify_kernel(subject, tokens, steps, rtol, max_bits)


def _certify_matrix(matrix: ArrayLike) -> Certificate:
    A, relative, absolute = matrices.with_uncertainty(matrix)
    interval = enclosure.enclose(A, lanczos.ends(A).smallest, relative, absolute)
    return Certificate(
        lower=interval.lower,
        upper=interval.upper,
        radius=enclosure.round_up(Fraction(relative) * Fraction(float(np.abs(A).max()))),
        bits=53,
        method="cholesky",
        n=len(A),
        data=A.copy(),
        lengths=np.zeros(0, int),
        network={},
        relative=relative,
        absolute=absolute,
    )


def _certify_kernel(
    rnn: ElmanRNN, tokens: np.ndarray, lengths: np.ndarray, rtol: float, max_bits: int
) -> Certificate:
    zero = _Found(Fraction(0), Fraction(0), Fraction(0), ball_kernel.FIRST_BITS, "singular")
    singular = _repeated(rnn, [x[:steps] for x, steps in zip(tokens, lengths, strict=True)])
    found = zero if singular else _search(rnn, tokens, lengths, rtol, max_bits)
    if found.low > Fraction(float(np.finfo(np.float64).max)):
        raise FloatingPointError(
            "The smallest eigenvalue exceeds the range of float64: rescale the tokens or the stds."
        )
    network = {field.name: getattr(rnn, field.name) for field in fields(ElmanRNN)}
    network |= {name: float(np.asarray(network[name])) for name in (*STDS, "initial_state_std")}
    network |= {"activation": rnn.phi.definition, "trainable": list(rnn.trainable)}
    if rnn.phi.slopes is not None:
        network["slopes"] = [slope + 0.0 for slope in rnn.phi.slopes]  # no -0.0
    return Certificate(
        lower=enclosure.round_down(found.low),
        upper=math.inf if found.high is None else enclosure.round_up(found.high),
        radius=math.inf if found.radius is None else enclosure.round_up(found.radius),
        bits=found.bits,
        method=found.method,
        n=int(lengths.sum()) if rnn.readout == "sequence" else len(tokens),
        data=tokens,
        lengths=lengths,
        network=network,
    )


class _Found(NamedTuple):
    """What :func:`_search` knows in the end; None is infinity."""

    low: Fraction
    high: Fraction | None
    radius: Fraction | None
    bits: int
    method: str


def _search(
    rnn: ElmanRNN, tokens: np.ndarray, lengths: np.ndarray, rtol: float, max_bits: int
) -> _Found:
    """Raise the precision until the enclosure is narrow; every attempt's is valid."""
    low, high, bits, method = Fraction(0), None, ball_kernel.FIRST_BITS, "weyl"
    while True:
        with ball_kernel.flint().ctx.workprec(bits):
            matrix = ball_kernel.ntk(rnn, tokens, lengths, bits)
            entries = [v for row in matrix for v in row]
            # the root of a ball that reaches below zero is not finite
            finite = all(v.is_finite() for v in entries)
            radius = _fraction(max(v.rad() for v in entries)) if finite else None
            if any(matrix[i][i].is_zero() for i in range(len(matrix))):
                return _Found(Fraction(0), Fraction(0), radius, bits, "singular")
            for name, attempt in (("weyl", _weyl), ("inverse", _inverse)):
                ends = attempt(matrix)
                if ends is None:
                    continue
                if high is None or ends[0] > low or ends[1] < high:
                    method = name
                low, high = max(low, ends[0]), ends[1] if high is None else min(high, ends[1])
                if high - low <= Fraction(rtol) * low:
                    return _Found(low, high, radius, bits, method)
        if 2 * bits > max_bits:
            return _Found(low, high, radius, bits, method)
        bits *= 2


def _repeated(rnn: ElmanRNN, tokens: list[np.ndarray]) -> bool:
    """Whether two outputs are one and the same function, because they have seen equal tokens."""
    if rnn.initial_state == "independent":
        return False
    seen = [x + 0.0 for x in tokens]  # -0.0 becomes 0.0
    histories: list[Any] = [(x.shape, x.tobytes()) for x in seen]
    if rnn.readout == "sequence":
        histories = [
            (x[: s + 1].tobytes(), x[s:].tobytes() if rnn.bidirectional else s)
            for x in seen
            for s in range(len(x))
        ]
    return len(set(histories)) < len(histories)


def _weyl(matrix: list[list[Any]]) -> tuple[Fraction, Fraction] | None:
    """Of the midpoints rounded to float64, moved by the norm of what they leave out."""
    middle, radius, power = ball_kernel.rounded(matrix)
    if not math.isfinite(radius):
        return None
    interval = enclosure.enclose(middle, lanczos.ends(middle).smallest, absolute=radius)
    unit = Fraction(2) ** power
    return Fraction(interval.lower) * unit, Fraction(interval.upper) * unit


def _inverse(matrix: list[list[Any]]) -> tuple[Fraction, Fraction] | None:
    """One over the largest eigenvalue of the inverse, which exists if its enclosure does."""
    try:
        inverse = ball_kernel.flint().arb_mat(matrix).inv().tolist()
    except ZeroDivisionError:
        return None
    middle, radius, power = ball_kernel.rounded(inverse)
    if not math.isfinite(radius):
        return None
    np.negative(middle, out=middle)
    negative = enclosure.enclose(middle, scipy.linalg.eigvalsh(middle)[0], absolute=radius)
    if negative.upper >= 0:
        return None
    unit = Fraction(2) ** power
    return 1 / (Fraction(-negative.lower) * unit), 1 / (Fraction(-negative.upper) * unit)


def _fraction(v: Any) -> Fraction:
    mantissa, exponent = v.man_exp()
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
