"""Kernels of GRU and LSTM cells against the Jacobian of the network, formed in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import ElmanRNN, cell_kernel, empirical_kernel

M, D, OUTPUTS = 5, 3, 2


def gru(params, state, token):
    read = {g: params["W" + g] @ state for g in "zrn"}
    drive = {g: params["U" + g] @ token + params["b" + g] for g in "zrn"}
    z, r = (jax.nn.sigmoid(read[g] + drive[g]) for g in "zr")
    state = (1 - z) * jnp.tanh(drive["n"] + r * read["n"]) + z * state
    return state, params["V"] @ state


def lstm(params, state, token):
    h, c = state
    i, f, g, o = (params["W" + k] @ h + params["U" + k] @ token + params["b" + k] for k in "ifgo")
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), params["V"] @ h


CELLS = {"gru": (gru, "zrn", np.zeros(M)), "lstm": (lstm, "ifgo", (np.zeros(M), np.ones(M)))}


def draw(gates):
    rng = np.random.default_rng(0)
    params = {"V": rng.standard_normal((OUTPUTS, M))}
    for g in gates:
        params["W" + g] = rng.standard_normal((M, M))
        params["U" + g] = rng.standard_normal((M, D))
        params["b" + g] = rng.standard_normal(M)
    return params


def brute_force(cell, params, state, x):
    """Gradients of the last output, (n, o, all parameters), by automatic differentiation."""

    def last(params, sequence):
        s = state
        for token in sequence:
            s, output = cell(params, s, token)
        return output

    jacobian = jax.jit(jax.vmap(jax.jacrev(last), (None, 0)))(params, x)
    return np.concatenate([np.reshape(g, (len(x), OUTPUTS, -1)) for g in jacobian.values()], axis=2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("method", ["gram", "jacobian"])
def test_is_the_product_of_jacobians(name, method):
    cell, gates, state = CELLS[name]
    params, state = draw(gates), jax.tree.map(jnp.asarray, state)
    x1, x2 = (np.random.default_rng(s).standard_normal((n, 4, D)) for s, n in ((1, 4), (2, 3)))
    jacobian1, jacobian2 = (brute_force(cell, params, state, x) for x in (x1, x2))
    # sums of a few hundred products: 1e-12 is thousands of roundoffs
    for other, jacobian in ((None, jacobian1), (x2, jacobian2)):
        expected = np.einsum("iop,jop->ij", jacobian1, jacobian) / OUTPUTS
        found = cell_kernel(cell, params, state, x1, other, method=method)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_elman_cell_is_the_elman_network():
    rnn = ElmanRNN(w_std=1.2, u_std=0.7, b_std=0.3)
    params = rnn.init(jax.random.key(0), input_dim=D, width=M)
    scale = {"W": 1.2 / M**0.5, "U": 0.7, "b": 0.3, "V": 1 / M**0.5}

    def cell(params, state, token):
        state = jax.nn.relu(
            scale["W"] * (params["W"] @ state)
            + scale["U"] * (params["U"] @ token)
            + scale["b"] * (jnp.zeros(M) + params["b"])
        )
        return state, scale["V"] * (params["V"] @ state)

    x = np.random.default_rng(1).standard_normal((20, 4, D))
    found = cell_kernel(cell, params, jnp.zeros(M), x)
    np.testing.assert_allclose(found, empirical_kernel(rnn, params, x).ntk, rtol=1e-12, atol=1e-12)


def test_bad_input():
    params = {"W": np.eye(2, dtype=np.float32), "b": np.zeros(2, np.float32)}
    x, state = np.zeros((2, 3, 2), np.float32), jnp.zeros(2)

    def kernel(cell, **changed):
        return cell_kernel(cell, params | changed, state, x)

    with pytest.raises(ValueError, match=r"must use params\['W'\] once a step"):
        kernel(lambda p, s, x: (p["W"] @ s + p["b"], p["W"] @ x))
    with pytest.raises(ValueError, match=r"every parameter, got no use of \['b'\]"):
        kernel(lambda p, s, x: (p["W"] @ x, s))
    with pytest.raises(TypeError, match=r"params\['b'\] is a bias"):
        kernel(lambda p, s, x: (p["b"] @ s, s))
    with pytest.raises(TypeError, match=r"params\['W'\] is a matrix"):
        kernel(lambda p, s, x: (s + p["W"], s))
    with pytest.raises(ValueError, match=r"params\['W'\] must be a matrix .* got \(2, 2, 2\)"):
        kernel(lambda p, s, x: (s, s), W=np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"method must be one of .* got 'auto'"):
        cell_kernel(lambda p, s, x: (s, s), params, state, x, method="auto")
