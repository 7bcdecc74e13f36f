"""Wrong arguments of what learns and predicts, each refused by the library's own words."""

import jax
import numpy as np
import optax
import pytest

import rnntk
from rnntk import checks, compare, estimators, predict, train

pytestmark = pytest.mark.usefixtures("unchecked")

RNN, KEY = rnntk.ElmanRNN(), jax.random.key(0)
X = np.random.default_rng(0).standard_normal((6, 3, 2)).astype(np.float32)
Y, K = X[:, -1, 0], np.eye(6)
MASKED = np.ma.masked_equal(K, 1.0)


@pytest.fixture
def unchecked():
    """What counts is the library's own word, not that of the annotations."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def trained(key=KEY, y=Y, **changes):
    settings = {"width": 8, "steps": 2, "learning_rate": 0.1} | changes
    return train.fit(RNN, key, X, y, **settings)


def fitted(key=KEY, **changes):
    return predict.fit_hyperparameters(RNN, X, Y, key, progress=False, **changes)


def compared(key=KEY, **changes):
    return compare.with_kernel(RNN, key, X, Y, **({"widths": [8], "steps": 2} | changes))


REFUSED = {
    "optimizer must be an optax": lambda: trained(optimizer="adam", learning_rate=None),
    "learning_rate must be a number": lambda: trained(learning_rate=[0.1, 0.2]),
    "memory_limit must be a whole number": lambda: trained(memory_limit="1GB"),
    "output_dim must be a whole number": lambda: trained(output_dim=2.0),
    "checkpoint must be a path": lambda: trained(checkpoint=3),
    "metrics must be a mapping": lambda: trained(metrics=[len]),
    "record must be a sequence of whole": lambda: trained(metrics={"a": len}, record="abc"),
    "y must hold numbers of classes, counted from 0, got 10000000000": lambda: trained(
        y=np.array([0, 1, 0, 10**10, 1, 0]), loss="cross_entropy"
    ),
    "memory must be a number, got '1GB'": lambda: predict.fit(RNN, X, Y, memory="1GB"),
    "tolerance must lie between 0 and 1": lambda: predict.fit(RNN, X, Y, tolerance=2.0),
    "seed must be a whole number": lambda: predict.fit(RNN, X, Y, seed=-1),
    "y must have a sum of squares within float64, got a largest entry of size 1e": lambda: (
        predict.KernelRegression(K, np.full(6, 1e308))
    ),
    "kernel must have no masked entries": lambda: train.stable_rate(MASKED),
    "kernel must be positive semidefinite, got eigenvalues up to -1": lambda: train.stable_rate(-K),
    "kernel_test_train must have no masked": lambda: predict.KernelClassifier(
        K, [0, 1] * 3
    ).predict(MASKED),
    "labels must be all numbers or all text": lambda: predict.KernelClassifier(
        K, [1, "1", 0, 0, 1, 0]
    ),
    "values must have no masked entries": lambda: compare.growth(range(1, 7), MASKED[0]),
    "values must be finite, got nan": lambda: compare.growth([1, 2, 3, 4], [1, np.nan, 2, 3]),
    "values must be positive numbers": lambda: compare.growth([1, 2, 3, 4], [1, 0, 2, 3]),
    "values must be one for each of 4 lengths, got 3": lambda: compare.growth(
        [1, 2, 3, 4], [1, 2, 3]
    ),
    "lengths must be real numbers": lambda: compare.growth("abcd", [1, 2, 3, 4]),
    "starts must be a whole number": lambda: fitted(starts=0),
    "iterations must be a whole number": lambda: fitted(iterations=0),
    "parameters must be some of": lambda: fitted(parameters=[["w_std"]]),
    "parameters must be a sequence of names": lambda: fitted(parameters="v_std"),
    "bounds must be a mapping": lambda: fitted(bounds=[1]),
    "bounds of v_std must be two real": lambda: fitted(bounds={"v_std": ("a", 2)}),
    "count must be a whole number": lambda: predict.GaussianProcess(K, Y, 1.0).sample(KEY, 0, K, K),
    "step_size must be a number, got True": lambda: predict.gradient_descent(
        K, Y, K, 3, step_size=True
    ),
    "C must be a number, got 'a'": lambda: predict.KernelClassifier(K, Y > 0, "svm", C="a"),
    "labels must be integers or text, all": lambda: predict.KernelClassifier(K, [None] * 6),
    "path must be a path, got 3": lambda: compare.load(3),
    "widths must be a sequence": lambda: compared(widths=8),
    "step_size must be a number": lambda: compared(step_size="a"),
    "seeds must be a whole number": lambda: compared(seeds=0),
    "n_components must be a whole number": lambda: estimators.RNTKTransformer(n_components=1.5).fit(
        X
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_arguments_are_named(message):
    with pytest.raises((TypeError, ValueError), match=message):
        REFUSED[message]()


@pytest.mark.parametrize(
    "call",
    [
        lambda: trained(key=0),
        lambda: fitted(key=0),
        lambda: compared(key=0),
        lambda: predict.GaussianProcess(K, Y, 1.0).sample(0, 1, K, K),
        lambda: RNN.init(0, input_dim=2, width=3),
    ],
)
def test_a_seed_is_no_key(call):
    with pytest.raises(TypeError, match=r"key must be a JAX random key, such as .*, got 0"):
        call()


def test_keys_of_both_kinds_pass_one_at_a_time():
    checks.check_key(KEY)
    checks.check_key(jax.random.PRNGKey(0))
    for several in (jax.random.split(KEY, 2), np.zeros((2, 2), np.uint32)):
        with pytest.raises(ValueError, match="key must be one JAX random key, got an array of"):
            checks.check_key(several)


def test_an_optimizer_of_optax_passes():
    assert trained(optimizer=optax.sgd(0.1), learning_rate=None).steps == 2


def test_no_new_points_have_no_class():
    machine = predict.KernelClassifier(K, [0, 1] * 3, "svm")
    assert machine.predict(K[:0]).shape == (0,)


@pytest.mark.parametrize("ridge", [1e16, 1e150, 1e300])
def test_a_ridge_far_above_the_kernel_is_the_whole_matrix(ridge):
    # K + ridge I is ridge I to rounding, so the coefficients are y / ridge
    kernel = np.asarray(rnntk.infinite_kernel(RNN, X).nngp)
    model = predict.KernelRegression(kernel, Y, ridge)
    np.testing.assert_allclose(model.coefficients * ridge, Y.astype(float), rtol=1e-13)


def test_a_time_beyond_all_others_is_the_limit():
    kernel = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = predict.gradient_flow(kernel, Y, kernel, [1e300, 1e308])  # their product overflows
    np.testing.assert_allclose(found, [Y, Y], rtol=1e-13)


@pytest.mark.parametrize("end", [1e18, 1e300])
def test_flow_that_rounding_decides_is_refused(end):
    ones, labels = np.ones((3, 3)), np.array([1.0, 2.0, 3.0])
    # equal points with different labels: the flow goes to their mean
    found = predict.gradient_flow(ones, labels, ones, 1e8)
    np.testing.assert_allclose(found, 2.0, rtol=1e-6)  # 1e8 times the rounding of the cross kernel
    with pytest.raises(ValueError, match="time must not be so long that rounding decides"):
        predict.gradient_flow(ones, labels, ones, end)
    with pytest.raises(ValueError, match="time must not be so long that rounding decides"):
        predict.trained_ensemble(ones, ones, labels, ones, ones, ones, end)
    with pytest.raises(ValueError, match="steps must not be so long that rounding decides"):
        predict.gradient_descent(ones, labels, ones, 10**18, step_size=0.5)
