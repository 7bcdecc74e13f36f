"""Kernels of GRU and LSTM cells against the Jacobian of the network, formed in full."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import ElmanRNN, cell_ntk, empirical_kernel

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
        found = cell_ntk(cell, params, state, x1, other, method=method)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def scaled(params, state, token):
    shift = np.ones(M, token.dtype) + params["b"] / 3
    state = jnp.tanh(0.5 * params["W"] @ state + -params["U"] @ token + shift)
    return state, (state[0] * params["V"] @ state)[0]


@pytest.mark.usefixtures("x64")
def test_multiples_and_a_scalar_output():
    rng = np.random.default_rng(0)
    shapes = {"W": (M, M), "U": (M, D), "b": (M,), "V": (1, M)}
    params = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    state, x = np.full(M, 0.3), rng.standard_normal((4, 3, D))

    def last(params, sequence):
        s = jnp.asarray(state)
        for token in sequence:
            s, output = scaled(params, s, token)
        return output

    gradients = jax.vmap(jax.grad(last), (None, 0))(jax.tree.map(jnp.asarray, params), x)
    flat = np.concatenate([np.reshape(g, (4, -1)) for g in gradients.values()], axis=1)
    found = cell_ntk(scaled, params, state, x)
    np.testing.assert_allclose(found, flat @ flat.T, rtol=1e-12, atol=1e-13)
    traced = jax.jit(lambda x: cell_ntk(scaled, params, state, x))(x)
    np.testing.assert_allclose(traced, found, rtol=1e-12, atol=1e-13)
    # tokens of float32 decide, as everywhere: a few hundred roundoffs
    low = cell_ntk(scaled, params, state, x.astype(np.float32))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, found, rtol=1e-4, atol=1e-4)


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
    found = cell_ntk(cell, params, jnp.zeros(M), x)
    np.testing.assert_allclose(found, empirical_kernel(rnn, params, x).ntk, rtol=1e-12, atol=1e-12)


def test_bad_input():
    params = {"W": np.eye(2, dtype=np.float32), "b": np.zeros(2, np.float32)}
    x, state = np.zeros((2, 3, 2), np.float32), jnp.zeros(2)

    def kernel(cell, **changed):
        return cell_ntk(cell, params | changed, state, x)

    with pytest.raises(ValueError, match=r"must use params\['W'\] once a step"):
        kernel(lambda p, s, x: (p["W"] @ s + p["b"], p["W"] @ x))
    with pytest.raises(ValueError, match=r"every parameter, got no use of \['b'\]"):
        kernel(lambda p, s, x: (p["W"] @ x, s))
    with pytest.raises(ValueError, match=r"params\['W'\] must be a matrix .* got \(2, 2, 2\)"):
        kernel(lambda p, s, x: (s, s), W=np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"method must be one of .* got 'dense'"):
        cell_ntk(lambda p, s, x: (s, s), params, state, x, method="dense")
    with pytest.raises(ValueError, match=r"params\['W'\] of shape \(2, 2\) takes .* got \(3,\)"):
        kernel(lambda p, s, x: (p["W"] @ jnp.zeros(3), s))
    with pytest.raises(ValueError, match=r"params\['W'\] .* shape \(2,\), got \(2, 2\)"):
        kernel(lambda p, s, x: (p["W"] @ jnp.zeros((2, 2)), s))
    with pytest.raises(ValueError, match=r"params\['b'\] of shape \(2,\) takes .* got \(1,\)"):
        kernel(lambda p, s, x: (p["b"] + s[:1], s))
    with pytest.raises(TypeError, match=r"params\['a'\] must be an array, got dict"):
        kernel(lambda p, s, x: (s, s), a=params)
    with pytest.raises(TypeError, match="params must be a dict of arrays by name, got tuple"):
        cell_ntk(lambda p, s, x: (s, s), (params["W"],), state, x)


MISUSES = {
    "W": [
        lambda w, s: s @ w,
        lambda w, s: w.T @ s,
        lambda w, s: w - s,
        lambda w, s: s + w,
        lambda w, s: s * w,
        lambda w, s: w @ w,
        lambda w, s: w[0],
        lambda w, s: jnp.dot(w, s),
        lambda w, s: jnp.sum(w),
        lambda w, s: jax.jit(lambda v, s: v @ s)(w, s),
        lambda w, s: jax.checkpoint(lambda v, s: v @ s)(w, s),
    ],
    "b": [
        lambda b, s: s - b,
        lambda b, s: s * b,
        lambda b, s: b @ s,
        lambda b, s: b + b,
        lambda b, s: b**2,
        lambda b, s: 1 / b,
    ],
}


@pytest.mark.parametrize("name, use", [(name, use) for name in MISUSES for use in MISUSES[name]])
def test_other_uses_are_refused(name, use):
    params = {"W": np.eye(2, dtype=np.float32), "b": np.zeros(2, np.float32)}
    allowed = {"W": r"params\['W'\] @ vector", "b": r"vector \+ params\['b'\]"}[name]
    with pytest.raises(TypeError, match=rf"params\['{name}'\] is a .* must use it as {allowed}"):
        cell_ntk(
            lambda p, s, x: (use(p[name], s), s), params, jnp.zeros(2), np.zeros((2, 3, 2), "f")
        )


@pytest.mark.parametrize(
    "output, got",
    [
        (lambda h: (h, h[None]), r"output must be one vector or scalar, got float32\(1, 2\)"),
        (lambda h: (h, (h, h)), r"output must be one vector or scalar, got \('float32"),
        (lambda h: (h, 0.0), "output must be one vector or scalar, got float32"),
        (lambda h: h, r"must return \(state, output\), got float32\(2,\)"),
        (lambda h: (h[:1], h), r"state like float32\(2,\), got float32\(1,\)"),
        (lambda h: ((h, h), h), r"state like float32\(2,\), got \('float32"),
    ],
)
def test_other_results_are_refused(output, got):
    def cell(params, state, token):
        return output(params["W"] @ state)

    with pytest.raises(TypeError, match=got):
        cell_ntk(cell, {"W": np.eye(2)}, jnp.zeros(2), np.zeros((2, 3, 2), "f"))


def test_what_is_not_finite_is_refused():
    def cell(params, state, token):
        state = 1e20 * (params["W"] @ (state + token))
        return state, state

    params, x = {"W": np.eye(2, dtype=np.float32)}, np.ones((2, 3, 2), np.float32)
    with pytest.raises(ValueError, match=r"params\['W'\] must be finite"):
        cell_ntk(cell, {"W": np.float32(np.nan) * params["W"]}, jnp.zeros(2), x)
    with pytest.raises(ValueError, match="state must be finite"):
        cell_ntk(cell, params, jnp.full(2, jnp.inf), x)
    with pytest.raises(FloatingPointError, match="kernel of the cell overflows float32"):
        cell_ntk(cell, params, jnp.zeros(2), x)
