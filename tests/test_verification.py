"""Certificates that lie, and those that are not what ``certify`` makes."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest

import rnntk
from rnntk import ElmanRNN
from rnntk.activations import leaky_relu
from rnntk.spectrum.certificate import certify
from rnntk.verification import verify

SUBJECTS = {
    "matrix": None,
    **{name: ElmanRNN(name) for name in ("relu", "abs", "linear", "erf", "gelu", "sin", "cos")},
    "leaky": ElmanRNN(leaky_relu(0.3)),
}


def draw(n=5, t=4, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, t, d))


def lies(certificate):
    """The same with either end on the wrong side of the enclosure, or of other data."""
    width = certificate.upper - certificate.lower
    replace = dataclasses.replace
    yield replace(certificate, lower=certificate.upper, upper=certificate.upper + width)
    yield replace(certificate, lower=certificate.lower - width, upper=certificate.lower)
    yield replace(certificate, lower=certificate.upper, upper=certificate.lower)
    yield replace(certificate, data=certificate.data * (1 + 1e-6))
    if certificate.network:
        yield replace(certificate, network=certificate.network | {"w_std": 1.4142136})
        for activation in ("gelu", "erf", "relu", "leaky_relu(0.3)"):
            if activation != certificate.network["activation"]:
                named = certificate.network | {"activation": activation}
                yield replace(certificate, network=named)
    if "slopes" in certificate.network:
        below, above = certificate.network["slopes"]
        for slopes in ([below + 1e-9, above], [below, above + 1e-9]):
            yield replace(certificate, network=certificate.network | {"slopes": slopes})


@pytest.mark.parametrize("subject", SUBJECTS)
def test_lies_are_not_verified(subject):
    matrix = draw(1, 5, 8)[0]
    certificate = (
        certify(matrix @ matrix.T) if subject == "matrix" else certify(SUBJECTS[subject], draw())
    )
    assert verify(certificate)
    assert not any(map(verify, lies(certificate)))


FORGED = [
    {"lower": 1e6, "upper": 2e6, "absolute": -3e6},
    {"lower": 1e6, "upper": 2e6, "relative": -1e6},
    *({name: np.nan} for name in ("lower", "upper", "radius", "relative", "absolute")),
    {"n": 7},
    {"radius": -1.0},
    {"method": "foo"},
    {"bits": 3},
    {"data": np.full((5, 5), np.nan)},
    {"data": np.ones((2, 3))},
    {"data": np.zeros((0, 0)), "n": 0},
]
FORGED_MATRICES = [
    {"lengths": np.array([5])},
    {"data": np.ones((5, 5, 1))},
    {"data": np.tril(np.ones((5, 5))) + 5 * np.eye(5), "lower": 0.5, "upper": 6.0},
    {"relative": 1e-20},
]
FORGED_KERNELS = [
    {"absolute": 1e-300},
    *({"lengths": np.array(v)} for v in ([3.9, 3, 3, 3, 3], [9, 3, 3, 3, 3], [0, 3, 3, 3, 3])),
    {"lengths": np.array([4, 4, 4])},
]
FORGED_NETWORKS = [
    {"trainable": ["W", "U", "b", "V", "Z"]},
    {"trainable": "WUbV"},
    {"trainable": []},
    {"initial_state": "zeros"},
    {"initial_state_std": 0.5},
    {"input_scaling": "foo"},
    {"readout": "Last"},
    {"bidirectional": "no"},
    {"depth": 0},
    {"w_std": np.nan},
    {"w_std": "1"},
    {"v_std": -1.0},
    {"slopes": [0.0]},
    {"slopes": None},
    {"gain": 1.0},
    {"activation": ["relu"]},
    {"slopes": [10**400, 1]},
]


def forged(changes):
    return pytest.mark.parametrize("change", changes, ids=str)


@forged(FORGED + FORGED_MATRICES)
def test_forged_certificates_of_matrices_are_not_verified(change):
    half = draw(1, 5, 8)[0]
    assert not verify(dataclasses.replace(certify(half @ half.T), **change))


@forged(FORGED + FORGED_KERNELS + [{"network": change} for change in FORGED_NETWORKS])
def test_forged_certificates_of_kernels_are_not_verified(change, the_certificate):
    if isinstance(change.get("network"), dict):
        change = {"network": the_certificate.network | change["network"]}
    assert not verify(dataclasses.replace(the_certificate, **change))


@pytest.fixture(scope="module")
def the_certificate():
    return certify(ElmanRNN(), draw())


def test_verification_shares_no_code_with_the_library():
    folder = Path(rnntk.verification.__file__).parent
    names = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names.add(node.module)
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    names = {name for name in names if not name.startswith("rnntk.verification")}
    modules = {"collections.abc", "fractions", "math", "mpmath", "numpy", "tqdm", "typing"}
    assert names == modules
