"""Certificates of given matrices."""

import numpy as np
import pytest

import rnntk
from rnntk.spectrum.certificate import Certificate, certify
from rnntk.verification import verify


def draw(n=5, t=4, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, t, d))


GIVEN = [
    np.diag([2.0, 1.0, 1e-30]),
    np.diag([1.0, 1.0, -1e-12]),
    np.array([[1.0, 2.0], [2.0, 1.0]]),
    np.ones((3, 3)),
    (draw(1, 9, 12)[0] @ draw(1, 9, 12)[0].T).astype(np.float32),
]


LARGE = draw(1, 320, 330)[0]


@pytest.mark.parametrize("matrix", GIVEN, ids=range(len(GIVEN)))
def test_certificates_of_given_matrices(matrix, tmp_path):
    certificate = certify(matrix)
    result = rnntk.spectrum.min_eigenvalue(matrix)
    assert (certificate.lower, certificate.upper) == (result.lower, result.upper)
    certificate.save(tmp_path / "certificate.npz")
    assert verify(Certificate.load(tmp_path / "certificate.npz"))


def test_certificates_follow_the_choice_of_the_method():
    A = LARGE @ LARGE.T
    certificate, result = certify(A), rnntk.spectrum.min_eigenvalue(A)
    assert result.method == "cholesky"
    assert (certificate.lower, certificate.upper) == (result.lower, result.upper)
