"""What people hand over: each works, with the right numbers, or is refused with the remedy."""

from functools import partial

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN, empirical_kernel, infinite_kernel

pytestmark = pytest.mark.usefixtures("unchecked")

N, T, D, WIDTH = 4, 5, 3, 16
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, T, D)).astype(np.float32)
RNN = ElmanRNN()


@pytest.fixture
def unchecked():
    """Annotations do not name all that is accepted; what counts is the library's own word."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def params(d=D, width=WIDTH, rnn=RNN):
    return rnn.init(jax.random.key(0), input_dim=d, width=width)


def read_only(x):
    copy = x.copy()
    copy.setflags(write=False)
    return copy


class Wrapped:
    """Anything with NumPy's protocol, as tensors of other libraries have it."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x if dtype is None else self.x.astype(dtype)

    shape = property(lambda self: self.x.shape)
    dtype = property(lambda self: self.x.dtype)


SAME = {
    "a list of lists": lambda: X.astype(np.float64).tolist(),
    "Fortran order": lambda: np.asfortranarray(X),
    "strides": lambda: np.repeat(X, 2, axis=1)[:, ::2],
    "negative strides": lambda: X[:, ::-1][:, ::-1],
    "read-only": lambda: read_only(X),
    "a JAX array": lambda: jnp.asarray(X),
    "a memory-mapped view": lambda: np.frombuffer(X.tobytes(), np.float32).reshape(X.shape),
    "big-endian": lambda: X.astype(">f4"),
    "NumPy's protocol": lambda: Wrapped(X),
    "an unmasked masked array": lambda: np.ma.masked_array(X, np.zeros(X.shape, bool)),
}
KERNELS = {
    "infinite": partial(infinite_kernel, RNN),
    "empirical": lambda x: empirical_kernel(RNN, params(), x),
    "apply": lambda x: RNN.apply(params(), x),
}


@pytest.mark.parametrize("function", KERNELS)
@pytest.mark.parametrize("form", SAME)
def test_other_forms_of_the_same_tokens(function, form):
    expected, found = KERNELS[function](X), KERNELS[function](SAME[form]())
    for one, two in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert one.dtype == two.dtype
        # a stride may change the order of a sum
        np.testing.assert_allclose(one, two, rtol=1e-6)


REFUSED = {
    "half precision": (lambda: X.astype(np.float16), TypeError, r"float32 or float64, got float16"),
    "bfloat16": (lambda: jnp.asarray(X, jnp.bfloat16), TypeError, "got bfloat16; convert with"),
    "integers": (lambda: X.astype(int), TypeError, r"got int64; convert with x1?\.astype\(float\)"),
    "booleans": (lambda: X > 0, TypeError, "float32 or float64, got bool"),
    "complex numbers": (lambda: X.astype(complex), TypeError, "float32 or float64, got complex"),
    "text": (lambda: np.full((2, 3, 1), "a"), TypeError, "float32 or float64, got <U1"),
    "objects": (lambda: np.full((2, 3, 1), None), TypeError, "float32 or float64, got object"),
    "None": (lambda: None, TypeError, "must be an array of tokens, got None"),
    "a number": (lambda: 1.0, ValueError, r"\(sequences, steps, token size\), got \(\)"),
    "one axis": (lambda: X[0, 0], ValueError, r"got \(3,\): two axes are missing"),
    "two axes": (
        lambda: X[0],
        ValueError,
        r"one sequence is x\[None\], scalar tokens are x\[\.\.\.",
    ),
    "four axes": (lambda: X[None], ValueError, r"got \(1, 4, 5, 3\): it has 4 axes"),
    "no sequence": (lambda: X[:0], ValueError, "at least one sequence, one step and one token"),
    "no step": (lambda: X[:, :0], ValueError, "at least one sequence, one step and one token"),
    "no entry": (lambda: X[..., :0], ValueError, "at least one sequence, one step and one token"),
    "a ragged list": (lambda: [[[1.0]], [[1.0], [2.0]]], ValueError, "rnntk.pad makes one of"),
    "NaN": (lambda: np.where(X[1, 2, 0] == X, np.nan, X), ValueError, r"got nan at .* \(1, 2, 0\)"),
    "infinity": (lambda: np.where(X[0, 1, 2] == X, np.inf, X), ValueError, r"inf at .*\(0, 1, 2\)"),
    "masked entries": (lambda: np.ma.masked_array(X, X > 0), ValueError, "no masked entries"),
}


@pytest.mark.parametrize("function", KERNELS)
@pytest.mark.parametrize("form", REFUSED)
def test_tokens_that_are_refused(function, form):
    make, error, message = REFUSED[form]
    with pytest.raises(error, match=message):
        KERNELS[function](make())


LENGTHS = {
    "too many": (np.full(5, 3), ValueError, r"one length per sequence, shape \(4,\), got \(5,\)"),
    "one number": (3, ValueError, r"one length per sequence, shape \(4,\), got \(\)"),
    "zero": (np.array([5, 0, 1, 2]), ValueError, r"lie in 1\.\.5 .* got 0 for sequence 1"),
    "negative": (np.array([5, 1, -1, 2]), ValueError, "got -1 for sequence 2"),
    "too long": (np.array([5, 6, 1, 2]), ValueError, "got 6 for sequence 1"),
    "floats": (np.full(4, 3.0), TypeError, "must be integers, got float64"),
    "booleans": (np.ones(4, bool), TypeError, "must be integers, got bool"),
}


@pytest.mark.parametrize("form", LENGTHS)
def test_lengths_that_are_refused(form):
    lengths, error, message = LENGTHS[form]
    with pytest.raises(error, match=message):
        infinite_kernel(RNN, X, lengths1=lengths)
    with pytest.raises(error, match=message):
        empirical_kernel(RNN, params(), X, lengths1=lengths)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_lengths_of_any_integers(dtype):
    lengths = np.array([5, 1, 3, 2], dtype)
    expected = infinite_kernel(RNN, X, lengths1=[5, 1, 3, 2]).ntk
    np.testing.assert_array_equal(infinite_kernel(RNN, X, lengths1=lengths).ntk, expected)


SIZES = {
    "one sequence": (1, 5, 3),
    "one step": (4, 1, 3),
    "one entry": (4, 5, 1),
    "one of each": (1, 1, 1),
    "large tokens": (3, 2, 5000),
    "long sequences": (2, 5000, 1),
}


@pytest.mark.parametrize("size", SIZES)
def test_sizes_at_the_ends(size):
    """Against the recursion of Cho & Saul's functions, written out in float64."""
    n, t, d = SIZES[size]
    x = np.random.default_rng(1).standard_normal((n, t, d)).astype(np.float32) / np.sqrt(d * t)
    expected_nngp, expected_ntk = by_hand(x.astype(np.float64))
    found = infinite_kernel(RNN, x)
    scale = np.sqrt(np.outer(np.diag(expected_ntk), np.diag(expected_ntk)))
    # float32: the tokens' distances lose sqrt(d) roundings, the steps add t at random
    allowed = 1e-6 * np.sqrt(t + d)
    assert np.abs(found.ntk - expected_ntk).max() <= allowed * scale.max()
    assert np.abs(found.nngp - expected_nngp).max() <= allowed * np.diag(expected_nngp).max()
    if size != "long sequences":
        # its own parameters: only that it runs, is symmetric and positive
        kernel = np.asarray(empirical_kernel(RNN, params(d, 8), x).ntk)
        np.testing.assert_array_equal(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel.astype(np.float64))[0] > -1e-5 * np.trace(kernel)


def by_hand(x):
    """relu, w^2 = u^2 = 2, no bias, last step."""
    n, t, _ = x.shape
    K, B = np.zeros((n, n)), np.zeros((n, n))
    for s in range(t):
        L = 2 * K + 2 * x[:, s] @ x[:, s].T
        std = np.sqrt(np.diag(L))
        angle = np.arccos(np.clip(L / np.outer(std, std), -1, 1))
        B = (1 - angle / np.pi) / 2 * (L + 2 * B)
        K = np.outer(std, std) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return K, K + B


def test_second_batch_of_another_dtype_or_size_is_refused():
    with (
        jax.enable_x64(True),
        pytest.raises(TypeError, match="x1 and x2 must have one dtype, got float32 and float64"),
    ):
        infinite_kernel(RNN, X, X.astype(np.float64))
    with pytest.raises(ValueError, match="got x1 with 3 entries a token and x2 with 2"):
        infinite_kernel(RNN, X, X[..., :2])
    with pytest.raises(ValueError, match="lengths2 must come with x2, got lengths2 alone"):
        infinite_kernel(RNN, X, lengths2=np.full(4, 5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rnntk.pad("text"), TypeError, "must be real numbers, got <U1"),
        (lambda: rnntk.pad([[]]), ValueError, r"sequences\[0\] must have shape .* got \(0,\)"),
        (lambda: rnntk.pad([X[0], X[0, :, :2]]), ValueError, "all sequences must have one token"),
        (
            lambda: RNN.init(jax.random.key(0), input_dim=0, width=3),
            ValueError,
            "input_dim must be",
        ),
        (lambda: RNN.init(jax.random.key(0), input_dim=2, width=2.5), ValueError, "got 2.5"),
        (lambda: RNN.init(jax.random.key(0), input_dim=2, width=True), ValueError, "got True"),
        (lambda: ElmanRNN(depth=True), ValueError, "depth must be a whole number"),
        (lambda: ElmanRNN(w_std="1"), TypeError, "w_std must be a real number, got '1'"),
        (lambda: ElmanRNN(w_std=-1.0), ValueError, "w_std must be finite and not negative"),
        (lambda: ElmanRNN(b_std=np.nan), ValueError, "b_std must be finite"),
        (lambda: ElmanRNN(readout="first"), ValueError, "readout must be one of .*'sequence'"),
        (lambda: ElmanRNN(readout=["last"]), ValueError, "readout must be one of"),
        (lambda: ElmanRNN(trainable=()), ValueError, "trainable must be a non-empty selection"),
        (lambda: ElmanRNN(trainable=("A",)), ValueError, "trainable must be a non-empty"),
        (lambda: ElmanRNN(activation=3), TypeError, "activation must be a name"),
        (lambda: ElmanRNN(activation="swish2"), ValueError, "activation must be one of"),
        (lambda: empirical_kernel(RNN, {}, X), ValueError, "params must come from init"),
        (lambda: empirical_kernel(RNN, params(2), X), ValueError, "must have shape"),
        (lambda: empirical_kernel(RNN, params(), X, memory_limit=2.0), ValueError, "memory_limit"),
        (lambda: empirical_kernel(RNN, params(), X, method="fast"), ValueError, "method must be"),
        (lambda: empirical_kernel(RNN, params(), X, outputs="all"), ValueError, "outputs must be"),
        (lambda: infinite_kernel(RNN, X * 1e30), FloatingPointError, "overflows float32 at step"),
    ],
)
def test_arguments_that_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
