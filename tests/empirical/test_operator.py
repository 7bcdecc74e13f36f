"""Products with the NTK without the matrix, against the Jacobian formed in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_empirical import brute_force, tokens

from rnntk import ElmanRNN, empirical_operator


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "options, outputs",
    [
        ({}, 1),
        ({"readout": "sequence", "trainable": ("W", "V"), "b_std": 0.2}, 2),
        ({"readout": "mean", "depth": 2, "bidirectional": True, "trainable": ("U",)}, 2),
    ],
)
def test_is_the_product_of_jacobians_with_vectors(options, outputs):
    rnn = ElmanRNN(initial_state="independent", initial_state_std=0.5, **options)
    params = rnn.init(jax.random.key(0), input_dim=3, width=5, output_dim=outputs)
    x, lengths, key = tokens(3, 4, 0), np.array([4, 2, 1]), jax.random.key(7)
    operator = empirical_operator(rnn, params, x, lengths=lengths, key=key)
    size = operator.shape[0]

    def gradients():
        apply = jax.jacobian(lambda p: rnn.apply(p, x, lengths, key=key).reshape(-1))
        leaves = jax.tree_util.tree_leaves_with_path(jax.jit(apply)(params))
        return np.concatenate(
            [g.reshape(size, -1) for path, g in leaves if path[-1].key in rnn.trainable], axis=1
        )

    jacobian = gradients()
    vectors = np.random.default_rng(1).standard_normal((size, 2))
    # sums of a few hundred products: 1e-12 is thousands of roundoffs
    expected = jacobian @ (jacobian.T @ vectors)
    np.testing.assert_allclose(operator @ vectors, expected, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(operator(vectors[:, 0]), expected[:, 0], rtol=1e-12, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_solvers_accept_it():
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=3, width=16)
    x = tokens(4, 3, 0)
    operator = empirical_operator(rnn, params, x)
    y = jnp.arange(4.0)

    @jax.jit
    def solve(operator, y):
        return jax.scipy.sparse.linalg.cg(operator, y, tol=1e-13, maxiter=50)[0]

    kernel = brute_force(rnn, params, x, x, None, None, None)[..., 0, 0]
    # a residual of 1e-13 |y| in a system whose condition number is below 1e3
    np.testing.assert_allclose(solve(operator, y), np.linalg.solve(kernel, y), rtol=1e-9)


def test_bad_input():
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=3, width=6)
    x = tokens(4, 5, 2, np.float32)
    operator = empirical_operator(rnn, params, x)
    assert operator.dtype == np.float32
    with pytest.raises(ValueError, match=r"vector must have shape \(4,\) or \(4, k\), got \(5,\)"):
        operator @ np.zeros(5, np.float32)
    with pytest.raises(TypeError, match=r"vector must be float32 .* got int32"):
        operator @ np.zeros(4, np.int32)
    with pytest.raises(ValueError, match=r"params\['U'\] must have shape"):
        empirical_operator(rnn, params, x[..., :2])
