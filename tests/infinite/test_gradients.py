"""Derivatives at points where roots and maxima meet their ends."""

import jax
import jax.numpy as jnp
import pytest

from rnntk import ElmanRNN, activations, infinite_kernel

ZERO_AND_ONE = ((((0.0,),)), (((1.0,),)))


@pytest.mark.usefixtures("x64")
def test_second_derivative_beside_a_zero_sequence():
    # one step of relu: ntk = v^2 (u^2 / 2 + u^2 / 2) for the token 1
    def ntk(u_std):
        return infinite_kernel(ElmanRNN(u_std=u_std), jnp.asarray(ZERO_AND_ONE)).ntk[1, 1]

    assert jax.grad(jax.grad(ntk))(2**0.5) == pytest.approx(2.0, rel=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("q", [0.3, 0.3 + 1e-9])
def test_mixed_second_derivative_at_equal_tokens(q):
    # Price's theorem: that of E phi phi' by p and q tends to u^2 E phi'^2 = 2 / 2
    def nngp(p, q):
        one, two = (jnp.stack([v, jnp.asarray(0.4)])[None, None] for v in (p, q))
        return infinite_kernel(ElmanRNN(u_std=2**0.5), one, two).nngp[0, 0]

    mixed = jax.grad(jax.grad(nngp, 0), 1)(jnp.asarray(0.3), jnp.asarray(q))
    assert mixed == pytest.approx(1.0, rel=1e-8)


ALIKE = [pytest.param(name, marks=pytest.mark.slow) for name in ("tanh", "gelu")]


@pytest.mark.parametrize("activation", ["relu", "sin", *ALIKE])
def test_no_nan_inside_a_gradient(activation):
    def total(u_std):
        rnn = ElmanRNN(activation, u_std=u_std)
        return infinite_kernel(rnn, jnp.asarray(ZERO_AND_ONE)).ntk.sum()

    with jax.debug_nans(True):
        assert jnp.isfinite(jax.grad(total)(1.0))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("activation", ["erf", "softplus", *ALIKE])
def test_slope_of_the_variance_at_zero(activation):
    # d/da E phi(sqrt(a) z)^2 = phi'(0)^2 + phi(0) phi''(0)
    phi = activations.resolve(activation)
    value, slope = phi.fn(jnp.asarray(0.0)), jax.grad(phi.fn)(0.0)
    expected = slope**2 + value * jax.grad(jax.grad(phi.fn))(0.0)
    found = jax.grad(lambda a: phi.variance(a[None])[0])(jnp.asarray(0.0))
    assert found == pytest.approx(float(expected), rel=1e-11)
