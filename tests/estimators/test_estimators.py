"""scikit-learn's own checks, its tools, and the forms of input."""

import pickle

import jax
import jaxtyping
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import rnntk
from rnntk.estimators import RNTKClassifier, RNTKRegressor, RNTKTransformer
from rnntk.predict import KernelRegression

ESTIMATORS = [RNTKRegressor(), RNTKClassifier(), RNTKTransformer(n_components=20)]
# Skipped by scikit-learn itself: these need a package or a setting that is not there.
SKIPPED = {"check_array_api_input"}


def checks():
    for estimator in ESTIMATORS:
        for instance, check in estimator_checks_generator(estimator, mark=None):
            name = f"{type(estimator).__name__}-{check.func.__name__}"
            marks = () if isinstance(estimator, RNTKRegressor) else pytest.mark.slow
            yield pytest.param(instance, check, id=name, marks=marks)


# In float32 the kernel of one sequence and that of many differ in the last digits, as vector
# registers are filled differently, and check_methods_subset_invariance allows 1e-7.
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
@pytest.mark.filterwarnings("ignore")
def test_check_estimator(x64, estimator, check):
    if check.func.__name__ in SKIPPED:
        pytest.skip("SCIPY_ARRAY_API is not set")
    jaxtyping.config.update("jaxtyping_disable", True)  # bad input has to reach the library
    check(estimator)


def data(n=40, t=5, d=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, t, d))
    return X, X[:, -1, 0] + 0.5 * X[:, -2, 1]


def test_predictions_are_those_of_kernel_regression(x64):
    X, y = data()
    rnn = rnntk.ElmanRNN("erf", w_std=0.9, b_std=0.1, depth=2)
    model = RNTKRegressor("erf", w_std=0.9, depth=2, ridge=0.1, kernel="nngp").fit(X[:30], y[:30])
    kernel, cross = (rnntk.infinite_kernel(rnn, *p).nngp for p in ((X[:30],), (X[30:], X[:30])))
    expected = KernelRegression(kernel, y[:30], 0.1).predict(cross)
    np.testing.assert_allclose(model.predict(X[30:]), expected, rtol=1e-12)
    assert model.n_features_in_ == 2
    assert model.score(X[:30], y[:30]) > 0.9


def test_every_argument_of_the_network_is_a_parameter():
    for estimator in ESTIMATORS:
        parameters = estimator.get_params()
        network = set(rnntk.ElmanRNN.__dataclass_fields__)
        assert network <= set(parameters)
        assert clone(estimator).get_params() == parameters


def test_grid_search_pipelines_and_cross_validation():
    X, y = data(30)
    grid = {"w_std": [0.5, 1.0], "activation": ["erf", "relu"], "ridge": [0.1, "leave_one_out"]}
    search = GridSearchCV(RNTKRegressor(), grid, cv=3, error_score="raise").fit(X, y)
    assert set(search.best_params_) == set(grid)
    labels = np.where(y > 0, "up", "down")
    assert cross_val_score(RNTKClassifier(), X, labels, cv=3).mean() > 0.6
    flat = X[:, :, 0]
    pipeline = make_pipeline(StandardScaler(), RNTKTransformer(n_components=12), Ridge(0.1))
    assert pipeline.fit(flat, flat[:, -1]).score(flat, flat[:, -1]) > 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_pickles_predict_the_same(estimator):
    X, y = data()
    target = y if isinstance(estimator, RNTKRegressor) else np.sign(y)
    fitted = clone(estimator).fit(X, target)
    again = pickle.loads(pickle.dumps(fitted))
    method = "transform" if isinstance(estimator, RNTKTransformer) else "predict"
    np.testing.assert_array_equal(getattr(again, method)(X), getattr(fitted, method)(X))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_ragged_lists_are_arrays_with_lengths_and_2d_is_one_channel(x64, estimator):
    X, y = data(12)
    lengths = np.array([5, 3, 1, 4, 2, 5, 5, 3, 2, 4, 5, 1])
    target = y if isinstance(estimator, RNTKRegressor) else np.sign(y)
    method = "transform" if isinstance(estimator, RNTKTransformer) else "predict"

    def outcome(data, **metadata):
        fitted = clone(estimator).fit(data, target, **metadata)
        return getattr(fitted, method)(data, **metadata)

    ragged = [row[:length] for row, length in zip(X, lengths, strict=True)]
    np.testing.assert_allclose(outcome(ragged), outcome(X, lengths=lengths), atol=1e-10)
    channel = X[:, :, 0]
    np.testing.assert_allclose(outcome(channel), outcome(channel[:, :, None]), atol=1e-10)
    words = [row[:length, 0] for row, length in zip(X, lengths, strict=True)]
    np.testing.assert_allclose(outcome(words), outcome(channel, lengths=lengths), atol=1e-10)


def test_features_of_the_training_sequences_know_their_lengths(x64):
    X, _ = data(12)
    lengths = np.array([5, 3, 1, 4, 2, 5, 5, 3, 2, 4, 5, 1])
    model = RNTKTransformer(n_components=6)
    once = model.fit_transform(X, lengths=lengths)
    np.testing.assert_array_equal(once, model.fit(X, lengths=lengths).transform(X, lengths=lengths))
    assert np.abs(once - model.fit_transform(X)).max() > 1e-3


def test_layouts_of_one_channel_follow_each_other(x64):
    X, y = data(12)
    words = [row[:length, 0] for row, length in zip(X, np.arange(12) % 5 + 1, strict=True)]
    model = RNTKRegressor(ridge=0.1).fit(words, y)
    one, two = X[:3, :, 0], X[:3, :, :1]
    boxed = np.empty(3, object)
    boxed[:] = list(one)
    for same in (one, list(one), boxed):
        np.testing.assert_array_equal(model.predict(same), model.predict(two))
    flat = RNTKRegressor(ridge=0.1).fit(X[:, :, 0], y)
    np.testing.assert_array_equal(flat.predict(two), flat.predict(one))


def test_lengths_are_routed():
    X, y = data()
    lengths = np.random.default_rng(1).integers(1, 6, 40)
    with sklearn.config_context(enable_metadata_routing=True):
        model = RNTKRegressor(ridge=0.1).set_fit_request(lengths=True)
        model = model.set_score_request(lengths=True)
        routed = cross_val_score(model, X, y, cv=2, params={"lengths": lengths})
    halves = np.arange(20), np.arange(20, 40)
    expected = []
    for rest, learn in (halves, halves[::-1]):
        fitted = RNTKRegressor(ridge=0.1).fit(X[learn], y[learn], lengths=lengths[learn])
        expected.append(fitted.score(X[rest], y[rest], lengths=lengths[rest]))
    np.testing.assert_allclose(routed, expected, rtol=1e-6)
    assert np.abs(routed - cross_val_score(RNTKRegressor(ridge=0.1), X, y, cv=2)).max() > 1e-3


def test_precomputed_kernels_are_pairwise():
    X, y = data()
    K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(b_std=0.1), X.astype(np.float32)).ntk)
    for estimator, target in ((RNTKRegressor, y), (RNTKClassifier, np.sign(y))):
        model = estimator(kernel="precomputed", ridge=0.1)
        assert model.__sklearn_tags__().input_tags.pairwise
        assert not estimator().__sklearn_tags__().input_tags.pairwise
        own = cross_val_score(estimator(ridge=0.1), X.astype(np.float32), target, cv=3)
        given = cross_val_score(model, K, target, cv=3)
        np.testing.assert_allclose(given, own, atol=1e-3)
    with pytest.raises(ValueError, match=r"square kernel matrix for kernel='precomputed', got"):
        RNTKRegressor(kernel="precomputed").fit(K[:, :5], y)


def test_transformed_sequences_have_the_kernel_as_inner_products(x64):
    X, _ = data()
    K = np.asarray(rnntk.infinite_kernel(rnntk.ElmanRNN(b_std=0.1), X).ntk)
    full = RNTKTransformer(n_components=40).fit(X)
    features = full.transform(X)
    np.testing.assert_allclose(features @ features.T, K, rtol=1e-9)
    assert full.remainder_ < 1e-12
    part = RNTKTransformer(n_components=10).fit(X)
    low = part.transform(X)
    assert 0.05 < part.remainder_ == pytest.approx(1 - np.sum(low**2) / np.trace(K))
    assert part.get_feature_names_out()[0] == "rntktransformer0"
    assert RNTKTransformer(n_components=10, random_state=1).fit(X).landmarks_.tolist() != (
        part.landmarks_.tolist()
    )


def test_set_output_reaches_the_transformer():
    X, _ = data()
    transformer = RNTKTransformer(n_components=4).set_output(transform="default")
    assert transformer.fit_transform(X).shape == (40, 4)


@pytest.mark.parametrize("method", ["matrix-free", "float32", "nystrom"])
def test_large_methods_are_reached(x64, method):
    X, y = data()
    options = {"method": method, "ridge": 0.1, "rank": 40}
    exact = RNTKRegressor(ridge=0.1).fit(X, y).predict(X)
    np.testing.assert_allclose(RNTKRegressor(**options).fit(X, y).predict(X), exact, atol=1e-5)
    labels = np.where(y > 0, "up", "down")
    model = RNTKClassifier(**options).fit(X, labels)
    expected = RNTKClassifier(ridge=0.1).fit(X, labels)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.model_.method == method
    with pytest.raises(ValueError, match=f"predict_proba needs method='exact', got '{method}'"):
        model.predict_proba(X)


def test_what_does_not_fit_is_named():
    X, y = data()
    with pytest.raises(ValueError, match="Unknown label type"):
        RNTKClassifier().fit(X, y)
    with pytest.raises(ValueError, match="could not convert string to float"):
        RNTKRegressor().fit(X, np.where(y > 0, "up", "down"))
    with pytest.raises(ValueError, match="at least two classes, got one class"):
        RNTKClassifier().fit(X, np.ones(40, int))
    with pytest.raises(ValueError, match="Input y contains NaN"):
        RNTKRegressor().fit(X, np.full(40, np.nan))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RNTKRegressor().fit(X, y[:30])
    with pytest.raises(ValueError, match=r"kernel must be one of .*got 'rbf'"):
        RNTKRegressor(kernel="rbf").fit(X, y)
    with pytest.raises(ValueError, match=r"classifier must be one of .*got 'tree'"):
        RNTKClassifier(classifier="tree").fit(X, np.sign(y))
    with pytest.raises(
        ValueError, match="n_components must be a whole number of at least 1, got 0"
    ):
        RNTKTransformer(n_components=0).fit(X)
    fitted = RNTKRegressor().fit(X, y)
    with pytest.raises(ValueError, match="the token size of fit"):
        fitted.predict(X[:, :, :1])
    with pytest.raises(ValueError, match="lengths must be None for a list of sequences"):
        fitted.predict([X[0], X[1][:2]], lengths=np.array([5, 2]))
    with pytest.raises(NotFittedError, match="not fitted"):
        RNTKRegressor().predict(X)


def test_the_kernel_has_the_dtype_of_the_data_where_jax_allows():
    X, y = data()
    assert RNTKRegressor(ridge=0.1).fit(X, y).model_.kernel.x.dtype == np.float32
    with jax.enable_x64(True):
        assert RNTKRegressor(ridge=0.1).fit(X, y).model_.kernel.x.dtype == np.float64
