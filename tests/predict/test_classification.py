"""Classification against scikit-learn and explicit refits; digits; calibration."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

import rnntk
from rnntk.predict import KernelClassifier


def blobs(n=120, classes=3, seed=0, spread=1.0):
    """Points around centres, their RBF kernel and their classes in words."""
    rng = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cat"])[:classes]
    index = rng.integers(0, classes, n)
    centres = 2 * np.array([[0.0, 1.0], [1.0, -0.5], [-1.0, -0.5]])[index]
    x = centres + spread * rng.standard_normal((n, 2))
    return rbf_kernel(x, gamma=0.3), names[index]


@pytest.mark.parametrize("classes", [2, 3])
def test_least_squares_is_ridge_regression_on_one_hot_rows(classes):
    kernel, labels = blobs(classes=classes)
    train, test = slice(0, 80), slice(80, None)
    model = KernelClassifier(kernel[train, train], labels[train], ridge=0.5)
    names, index = np.unique(labels[train], return_inverse=True)
    targets = np.eye(classes)[index] - 1 / classes
    peer = KernelRidge(alpha=0.5, kernel="precomputed").fit(kernel[train, train], targets)
    expected = peer.predict(kernel[test, train])
    np.testing.assert_allclose(model.decision(kernel[test, train]), expected, atol=1e-12)
    np.testing.assert_array_equal(
        model.predict(kernel[test, train]), names[expected.argmax(axis=1)]
    )
    assert model.classes.tolist() == names.tolist()


@pytest.mark.parametrize("classes", [2, 3])
def test_machines_are_scikit_learns(classes):
    kernel, labels = blobs(classes=classes)
    train, test = slice(0, 80), slice(80, None)
    scaled = 7 * kernel  # the price C belongs to a kernel of diagonal 1
    model = KernelClassifier(scaled[train, train], labels[train], "svm", C=2.0)
    peer = SVC(kernel="precomputed", C=2.0).fit(kernel[train, train], labels[train])
    np.testing.assert_array_equal(
        model.predict(scaled[test, train]), peer.predict(kernel[test, train])
    )


def test_the_temperature_minimizes_the_loss_of_points_left_out():
    kernel, labels = blobs(60)
    model = KernelClassifier(kernel, labels, ridge=0.3)
    index = np.unique(labels, return_inverse=True)[1]
    held_out = np.zeros((60, 3))
    for i in range(60):
        rest = np.delete(np.arange(60), i)
        left = KernelClassifier(kernel[np.ix_(rest, rest)], labels[rest], ridge=0.3)
        held_out[i] = left.decision(kernel[i : i + 1, rest])[0]

    def loss(temperature):
        return -scipy.special.log_softmax(held_out / temperature, axis=1)[
            np.arange(60), index
        ].mean()

    best = scipy.optimize.minimize_scalar(loss, bounds=(1e-3, 10), method="bounded").fun
    assert loss(model.temperature) == pytest.approx(best, rel=1e-6)
    assert loss(1.0) > 1.1 * best


@pytest.mark.parametrize("method", ["least_squares", "svm"])
def test_probabilities_are_calibrated_on_new_points(method):
    kernel, labels = blobs(1500, spread=1.4)
    train, test = slice(0, 300), slice(300, None)
    model = KernelClassifier(kernel[train, train], labels[train], method)
    p = model.probabilities(kernel[test, train])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    right = model.classes[p.argmax(axis=1)] == labels[test]
    # 1200 points: the mean confidence is the accuracy up to three standard errors and a little
    assert abs(p.max(axis=1).mean() - right.mean()) < 0.05
    index = np.searchsorted(model.classes, labels[test])
    loss = -np.log(p[np.arange(1200), index]).mean()
    assert loss < 0.9 * np.log(3)
    raw = scipy.special.softmax(model.decision(kernel[test, train]), axis=1)
    assert loss < -np.log(raw[np.arange(1200), index]).mean()  # a temperature of 1 is worse


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a", "a", "a"], {}, "at least two classes, got one class: .*'a'"),
        ([0, 1], {}, r"one class for each of the 3 training points, got \(2,\)"),
        ([0.5, 1.0, 2.0], {}, "labels must be classes, got numbers that are not whole"),
        ([0.0, np.nan, 1.0], {}, "labels must be classes, got .* not finite"),
        ([0, 1, 0], {"method": "tree"}, r"method must be one of .*got 'tree'"),
        ([0, 1, 0], {"C": 0.0}, "C must be positive and finite, got 0"),
        ([0, 1, 0], {"ridge": -1.0}, "ridge must be finite and not negative"),
    ],
)
def test_bad_arguments_are_named(labels, options, message):
    with pytest.raises(ValueError, match=message):
        KernelClassifier(np.eye(3), np.array(labels), **options)
    with pytest.raises(TypeError, match="labels must be integers or text, got complex128"):
        KernelClassifier(np.eye(3), np.array([1j, 1, 2]))


def test_a_class_of_one_has_no_probability_by_machines():
    model = KernelClassifier(np.eye(3), np.array([0, 0, 1]), "svm")
    with pytest.raises(ValueError, match="need two training points of each class"):
        model.probabilities(np.eye(3))


ACTIVATIONS, W, B = ("relu", "erf"), (0.5, 1.0, 2**0.5), (0.0, 0.5)


def split_digits():
    data = rnntk.datasets.digits()
    return (data.x[:898], data.y[:898]), (data.x[898:], data.y[898:])


def tuned_network(x, y):
    """The network and machine whose five-fold error on the training part is least."""
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    best = None
    for activation in ACTIVATIONS:
        for w in W:
            for b in B:
                rnn = rnntk.ElmanRNN(activation, w_std=w, b_std=b)
                for kind in ("ntk", "nngp"):
                    kernel = np.asarray(getattr(rnntk.infinite_kernel(rnn, x), kind))
                    kernel = kernel / np.diagonal(kernel).mean()
                    search = GridSearchCV(
                        SVC(kernel="precomputed"),
                        {"C": [1.0, 10.0, 100.0]},
                        cv=StratifiedKFold(5, shuffle=True, random_state=0),
                    ).fit(kernel, y)
                    score = search.best_score_
                    if best is None or score > best[0]:
                        best = score, rnn, kind, search.best_params_["C"]
    return best


@pytest.mark.slow
def test_digits_reach_96_percent(x64):
    (x, y), (x_test, y_test) = split_digits()
    _, rnn, kind, C = tuned_network(x, y)
    kernel, cross = (
        np.asarray(getattr(rnntk.infinite_kernel(rnn, *pair), kind)) for pair in ((x,), (x_test, x))
    )
    for method in ("svm", "least_squares"):
        model = KernelClassifier(kernel, y, method, C=C)
        accuracy = np.mean(model.predict(cross) == y_test)
        print(method, rnn.activation, rnn.w_std, rnn.b_std, kind, C, accuracy)
        if method == "svm":
            assert accuracy >= 0.96
