"""Classification against scikit-learn and explicit refits; digits; calibration."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

import rnntk
from rnntk.predict import KernelClassifier, ridge_path


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
        (["a", "a", "a"], {}, "at least two classes, got one class: a"),
        ([0, 1], {}, r"one class for each of the 3 training points, got \(2,\)"),
        ([0.5, 1.0, 2.0], {}, "labels must be classes, got numbers that are not whole"),
        ([0.0, np.nan, 1.0], {}, "labels must be classes, got .* not finite"),
        ([0, 1, 0], {"method": "tree"}, r"method must be one of .*got 'tree'"),
        ([0, 1, 0], {"C": 0.0}, "C must be finite and positive, got 0"),
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


def split_digits():
    data = rnntk.datasets.digits()
    return (data.x[:898], data.y[:898]), (data.x[898:], data.y[898:])


def accuracy(kernels, y, y_test):
    """On the test part, of the kernel whose leave-one-out error on the training part is least.

    ``kernels`` are pairs of a train kernel and one of the test with the training part; the ridge
    is chosen likewise.
    """
    targets = np.eye(10)[y] - 0.1
    found = []
    for kernel, cross in kernels:
        error = ridge_path(kernel, targets).leave_one_out.min()
        predicted = KernelClassifier(kernel, y).predict(cross)
        found.append((error, float(np.mean(predicted == y_test))))
    return min(found)[1]


def networks(x, x_test):
    for activation in ("relu", "sin"):
        for w_std in (1.0, 2**0.5):
            for bidirectional in (False, True):
                rnn = rnntk.ElmanRNN(activation, w_std=w_std, bidirectional=bidirectional)
                train, cross = rnntk.infinite_kernel(rnn, x), rnntk.infinite_kernel(rnn, x_test, x)
                for kind in ("ntk", "nngp"):
                    yield tuple(np.asarray(getattr(k, kind)) for k in (train, cross))


@pytest.mark.slow
def test_digits_reach_96_percent(x64):
    (x, y), (x_test, y_test) = split_digits()
    assert accuracy(networks(x, x_test), y, y_test) >= 0.96  # 97.3 %
    flat, flat_test = x.reshape(898, -1), x_test.reshape(len(x_test), -1)
    gammas = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    rbf = ((rbf_kernel(flat, gamma=g), rbf_kernel(flat_test, flat, gamma=g)) for g in gammas)
    assert accuracy(rbf, y, y_test) == pytest.approx(0.9755, abs=1e-3)


def test_the_default_network_reads_digits(x64):
    (x, y), (x_test, y_test) = split_digits()
    rnn = rnntk.ElmanRNN()
    model = KernelClassifier(rnntk.infinite_kernel(rnn, x).ntk, y)
    predicted = model.predict(np.asarray(rnntk.infinite_kernel(rnn, x_test, x).ntk))
    assert np.mean(predicted == y_test) >= 0.96  # 96.8 %; all but the ridge is the default
