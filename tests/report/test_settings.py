"""Settings and the small functions of the report."""

import numpy as np
import pytest

from rnntk.report import kernels, sections
from rnntk.report.results import Method, Predictions
from rnntk.report.settings import Settings, read, written


def test_ties_are_called_ties():
    def told(scores, metric="test accuracy"):
        methods = {name: Method(value) for name, value in scores.items()}
        return sections._best(Predictions(metric, 10, (1.0,), methods, {}))

    assert told({"NTK": 0.0, "RBF": 0.0}) == "All methods tie."
    assert told({"NTK": 0.9, "RBF": 0.9, "constant": 0.1}).startswith("NTK and RBF tie as the best")
    assert told({"NTK": 1.0, "RBF": 0.5}) == "The best is NTK, right on all of 10 test sequences."
    assert told({"NTK": 2.0, "RBF": 1.0}, "test RMSE").startswith("The best is RBF. Smaller")


def test_fit_slope_has_the_standard_error_of_a_straight_line():
    widths, deviations = [10, 100], np.exp([[1.0, 3.0], [0.0, 2.0]])
    fit = kernels.fit_slope(widths, deviations)
    assert kernels.fit_slope(widths, np.ones((2, 2))) == (0.0, None)  # and not NaN
    # By hand: residuals +-1 about the means 2 and 1, two degrees of freedom.
    spread = np.log(10) / 2
    assert fit.value == pytest.approx(-1 / np.log(10))
    assert fit.standard_error == pytest.approx(np.sqrt(4 / 2 / (4 * spread**2)))
    assert kernels.fit_slope(widths, deviations[:, :1]).standard_error is None
    lost = np.array([[1.0, np.nan], [0.5, np.inf]])
    assert kernels.convergence(widths, lost).slope == pytest.approx(np.log10(0.5))
    assert kernels.convergence(widths, np.full((2, 2), np.nan)).slope is None


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_relative_differences_of_any_size(scale):
    a, b = np.array([3.0, 4.0]) * scale, np.array([0.0, 4.0]) * scale
    assert kernels.relative(a, b) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": ()}, "widths must hold at least one width, got none"),
        ({"widths": (0, 3)}, "widths must be a whole number of at least 1, got 0"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"readout": "sequence"}, r"readout must be one of \('last', 'mean'\), got 'sequence'"),
        ({"task": "ranking"}, r"task must be one of .* got 'ranking'"),
        ({"dtype": "float16"}, r"dtype must be one of .* got 'float16'"),
        ({"ridge": 0.0}, "ridge must be positive and finite, got 0.0"),
        ({"test_fraction": 1.0}, "test_fraction must be positive and below 1, got 1.0"),
        ({"activation": "swish2"}, "activation must be one of"),
        ({"test": ("a",), "test_fraction": 0.5}, "test and test_fraction exclude each other"),
    ],
)
def test_settings_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": 5}, "data must be a list, got 5"),
        ({"test": [5]}, "test must be text, got 5"),
        ({"widths": 64}, "widths must be a list, got 64"),
        ({"quiet": "no"}, "quiet must be true or false, got 'no'"),
        ({"certify": 1}, "certify must be true or false, got 1"),
        ({"title": 5}, "title must be text, got 5"),
        ({"out": None}, "out must be text, got None"),
        ({"ridge": "1"}, "ridge must be a number, got '1'"),
        ({"learning_rate": True}, "learning_rate must be a number, got True"),
        ({"w_std": "1"}, "w_std must be a real number, got '1'"),
    ],
)
def test_settings_of_the_wrong_type(settings, message):
    """As a file may have them."""
    with pytest.raises(TypeError, match=message):
        Settings(**settings)


def test_settings_of_numpy_and_pathlib_survive_a_file(tmp_path):
    settings = Settings(
        data=[tmp_path / "a.csv"],
        out=tmp_path,
        widths=np.array([8, 4]),
        seeds=np.int64(3),
        w_std=np.float32(0.5),
        ridge=np.float64(0.25),
        title="beyond \U000e0001 and \x07",
    )
    path = tmp_path / "config.toml"
    path.write_text(written(settings))
    assert Settings(**read(path)) == settings
    path.write_text("w_std = 1.0\nw-std = 2.0\n")
    with pytest.raises(ValueError, match="w-std is given twice, with a dash and with an under"):
        read(path)


def test_settings_survive_a_file(tmp_path):
    settings = Settings(
        data=('odd "name".csv', "b\\c.csv"),
        widths=(4, 8),
        b_std=0.1,
        bidirectional=True,
        trainable=("W",),
        title="tabs\tand ümlauts",
    )
    path = tmp_path / "config.toml"
    path.write_text(written(settings))
    assert Settings(**read(path)) == settings
    path.write_text("b-std = 0.5\n")
    assert Settings(**read(path)).b_std == 0.5
    for text, message in (("b_sdt = 1", "b_sdt is no option of the report"), ("=", "not a TOML")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"config.toml: {message}"):
            read(path)
