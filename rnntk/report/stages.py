"""The stages of the report: each computes its numbers, arrays and figures, with progress."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure
from sklearn.metrics.pairwise import euclidean_distances, linear_kernel, rbf_kernel
from tqdm import tqdm

import rnntk
from rnntk import bounds, datasets, plot, predict, spectrum, train
from rnntk.datasets import MIN_TRAIN, Dataset
from rnntk.network.elman import ElmanRNN

RIDGES = np.logspace(-7, 1, 9)
"""Ridges tried for every kernel, relative to the mean of its diagonal."""
GAMMAS = 2.0 ** np.arange(-3, 4)
"""Gammas tried for the RBF kernel, relative to 1 / (median squared distance)."""
MAX_TEST = 2000
"""Most test sequences: more would only cost time."""
TRAINED_WIDTH = 256
"""The networks trained have the largest of the widths up to this one."""
BATCH_SIZE = 32
STEPS = 600
STEP_FRACTION = 0.125
"""Learning rate times the largest eigenvalue of ntk/n. Gradient descent diverges from 2, and the
kernel of a finite network can be ten times the limit."""
USUAL_NORM = (1e-3, 1e3)
"""Where the root mean square norm of tokens leaves them as they are: see :func:`prepare`."""
USUAL_SPREAD = (1e-140, 1e140)
"""Standard deviations of labels whose squares are far from overflow and underflow."""


@dataclass(frozen=True)
class Settings:
    """What a report is made of.

    Args:
        data: ``"digits"``, or the paths that :func:`rnntk.datasets.load` takes.
        n: number of training sequences; by default 200, or four fifths of the data if it holds
            fewer than 250 sequences.
        widths: widths of the finite networks; sorted, each once.
        seeds: number of networks of each width.
        out: folder of the files.
        seed: where all random numbers start: the split and the networks.

    Raises:
        ValueError: for sizes that are not whole numbers of at least 1, or no width.
    """

    data: tuple[str, ...] = ("digits",)
    n: int | None = None
    widths: tuple[int, ...] = (64, 256, 1024)
    seeds: int = 8
    out: str = "report"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be whole numbers of at least 1, got {self.widths}.")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {self.seeds}.")
        object.__setattr__(self, "widths", tuple(sorted(set(self.widths))))


class Problem(NamedTuple):
    """Network, data and targets that the stages share; tokens are 2**token_exponent times x."""

    rnn: ElmanRNN
    train: Dataset
    test: Dataset
    targets: Float[np.ndarray, "n o"]
    settings: Settings
    token_exponent: int


class Outcome(NamedTuple):
    """What a stage adds to the files."""

    numbers: dict[str, Any]
    arrays: dict[str, np.ndarray]
    figures: dict[str, Figure]


class Slope(NamedTuple):
    """A fitted exponent and its standard error, ``None`` where two points leave no residual."""

    value: float
    standard_error: float | None


class Tuned(NamedTuple):
    """A kernel regression whose ridge leave-one-out has chosen."""

    predictions: Float[np.ndarray, "n_test o"]
    ridge: float
    relative_ridge: float
    loo_error: float


def prepare(settings: Settings) -> Problem:
    """Load and split the data, and encode the training labels as targets of a regression.

    Classes become one-hot rows minus 1/c for c classes; values are standardized.

    Tokens whose norm is far from one (:data:`USUAL_NORM`) are multiplied by a power of two, for
    the networks are trained in float32. That is exact: ReLU without biases is homogeneous, and
    the kernels are multiplied by the square.

    Raises:
        ValueError: as :func:`rnntk.datasets.load` and :func:`rnntk.datasets.split`; if all
            training tokens are zero; or if values have a spread outside :data:`USUAL_SPREAD`.

    Example:
        >>> import rnntk.report.stages
        >>> problem = rnntk.report.stages.prepare(rnntk.report.stages.Settings(n=50))
        >>> problem.targets.shape, float(abs(problem.targets.sum(axis=1)).max()) < 1e-12
        ((50, 10), True)
    """
    data = datasets.load(settings.data)
    n = settings.n
    if n is None:
        n = min(200, max(MIN_TRAIN, len(data) * 4 // 5))
    learn, test = datasets.split(data, n, n_test=max(1, min(len(data) - n, MAX_TEST)))
    if not learn.x.any():
        raise ValueError(
            f"{data.name}: x is zero in all {n} training sequences; every kernel would be zero."
        )
    if learn.is_classification:
        one_hot = learn.y[:, None] == learn.classes[None, :]
        targets = one_hot.astype(np.float64) - 1.0 / len(learn.classes)
    else:
        _check_spread(data.name, data.y)
        _check_spread(data.name, learn.y)
        targets = ((learn.y - learn.y.mean()) / learn.y.std())[:, None]
    magnitude, (low, high) = datasets.log2_norm(data), np.log2(USUAL_NORM)
    exponent = 0 if low <= magnitude <= high else -round(magnitude)
    learn, test = (replace(part, x=np.ldexp(part.x, exponent)) for part in (learn, test))
    return Problem(ElmanRNN(), learn, test, targets, settings, exponent)


def _check_spread(name: str, y: Float[np.ndarray, " n"]) -> None:
    low, high = USUAL_SPREAD
    with np.errstate(all="ignore"):
        spread = y.std()
    if not low <= spread <= high:
        raise ValueError(
            f"{name}: values y must have a standard deviation within {low:g} to {high:g}, "
            f"got {spread:g}; multiply y by a constant."
        )


def score(problem: Problem, predictions: Float[np.ndarray, "n_test o"]) -> float:
    """Test accuracy for classes, test root mean square error in the units of y for values."""
    learn, test = problem.train, problem.test
    if learn.is_classification:
        return float(np.mean(learn.classes[predictions.argmax(axis=1)] == test.y))
    values = predictions[:, 0] * learn.y.std() + learn.y.mean()
    return float(np.sqrt(np.mean((values - test.y) ** 2)))


def fit_slope(widths: Sequence[int], deviations: Float[np.ndarray, "w s"]) -> Slope:
    """Least-squares slope of log deviation on log width over all networks.

    Logarithms, because the deviation is heavy-tailed: a ReLU network that happens to have a large
    scale can deviate twenty times as much as the next, and a root mean square would show little
    else.

    Args:
        widths: at least two different widths.
        deviations: a row for each width and a column for each seed, all positive.

    Example:
        >>> import numpy as np, rnntk.report.stages
        >>> deviations = 1 / np.sqrt([[16.0, 16.0], [64.0, 64.0]])
        >>> round(rnntk.report.stages.fit_slope([16, 64], deviations).value, 12)
        -0.5
    """
    log_width = np.repeat(np.log(np.asarray(widths, float)), deviations.shape[1])
    fit = scipy.stats.linregress(log_width, np.log(deviations).ravel())
    error = float(fit.stderr) if deviations.size > 2 else None
    return Slope(float(fit.slope), error)


def unit_diagonal(kernel: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Entries divided by the square roots of the two diagonal ones; zero where those are zero.

    Example:
        >>> import numpy as np, rnntk.report.stages
        >>> rnntk.report.stages.unit_diagonal(np.array([[4.0, 1.0], [1.0, 1.0]]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    root = np.sqrt(np.diag(kernel))
    inverse = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    return kernel * inverse[:, None] * inverse[None, :]


def tune(
    kernel: Float[np.ndarray, "n n"],
    kernel_test_train: Float[np.ndarray, "n_test n"],
    targets: Float[np.ndarray, "n o"],
) -> Tuned:
    """Kernel regression with the ridge of :data:`RIDGES` whose leave-one-out error is least.

    Raises:
        ValueError: if the kernel is singular with every ridge tried.
    """
    scale = float(np.mean(np.diag(kernel)))
    best: Tuned | None = None
    for relative in RIDGES:
        try:
            model = predict.KernelRegression(kernel, targets, relative * scale)
        except ValueError:
            if relative == RIDGES[-1] and best is None:
                raise
            continue  # singular to rounding with so small a ridge
        error = float(np.mean((model.leave_one_out() - targets) ** 2))
        if best is None or error < best.loo_error:
            predictions = model.predict(kernel_test_train)
            best = Tuned(predictions, float(relative * scale), float(relative), error)
    assert best is not None
    return best


def kernels(problem: Problem, arrays: dict[str, np.ndarray], title: str) -> Outcome:
    """Infinite-width kernels, and how far those of finite networks deviate from them."""
    x, lengths = device(problem.train)
    x_test, lengths_test = device(problem.test)
    widths, seeds = problem.settings.widths, problem.settings.seeds
    kinds = ("ntk", "ntk_unit_diagonal", "nngp", "nngp_unit_diagonal")
    deviations = {kind: np.zeros((len(widths), seeds)) for kind in kinds}
    traces = np.zeros((len(widths), seeds))
    eigenvalues = np.zeros((len(widths), seeds, len(problem.train)))
    with tqdm(total=2 + len(widths) * seeds, desc=title) as bar:
        limit = rnntk.infinite_kernel(problem.rnn, x, lengths1=lengths)
        ntk, nngp = np.asarray(limit.ntk), np.asarray(limit.nngp)
        bar.update()
        cross = rnntk.infinite_kernel(
            problem.rnn, x_test, x, lengths1=lengths_test, lengths2=lengths
        )
        bar.update()
        for i, width in enumerate(widths):
            for seed in range(seeds):
                params = problem.rnn.init(
                    _key(problem, width, seed), input_dim=x.shape[-1], width=width
                )
                finite = rnntk.empirical_kernel(problem.rnn, params, x, lengths1=lengths)
                for kind, limits in (("ntk", ntk), ("nngp", nngp)):
                    matrix = np.asarray(getattr(finite, kind), np.float64)
                    deviations[kind][i, seed] = _relative(matrix, limits)
                    deviations[f"{kind}_unit_diagonal"][i, seed] = _relative(
                        unit_diagonal(matrix), unit_diagonal(limits)
                    )
                traces[i, seed] = np.trace(finite.ntk) / np.trace(ntk)
                eigenvalues[i, seed] = spectrum.eigenvalues(finite.ntk)
                bar.update()
    numbers: dict[str, Any] = {
        "widths": list(widths),
        "seeds": seeds,
        "ntk_trace_over_limit": traces,
        **{kind: _convergence(widths, values) for kind, values in deviations.items()},
    }
    shown = {"NTK": "ntk", "NTK, unit diagonal": "ntk_unit_diagonal"}
    slopes = {name: numbers[kind]["slope"] for name, kind in shown.items()}
    figure = plot.width_convergence(
        widths,
        {name: deviations[kind] for name, kind in shown.items()},
        slopes=slopes if len(widths) > 1 else None,
    )
    return Outcome(
        numbers,
        {
            "ntk": ntk,
            "nngp": nngp,
            "ntk_test_train": np.asarray(cross.ntk),
            "nngp_test_train": np.asarray(cross.nngp),
            "empirical_ntk_eigenvalues": eigenvalues,
        },
        {"convergence": figure},
    )


def _convergence(widths: Sequence[int], deviations: Float[np.ndarray, "w s"]) -> dict[str, Any]:
    slope = fit_slope(widths, deviations) if len(widths) > 1 else None
    return {
        "relative_frobenius_deviation": deviations,
        "geometric_mean": np.exp(np.mean(np.log(deviations), axis=1)),
        "root_mean_square": np.sqrt(np.mean(deviations**2, axis=1)),
        "slope": slope and slope.value,
        "slope_standard_error": slope and slope.standard_error,
        "slope_of_theory": -0.5,
    }


def eigenvalues(problem: Problem, arrays: dict[str, np.ndarray], title: str) -> Outcome:
    """Eigenvalues of the infinite-width NTK, its smallest one, bounds, and finite widths."""
    widths = problem.settings.widths
    with tqdm(total=3, desc=title) as bar:
        eigenvalues = spectrum.eigenvalues(arrays["ntk"])
        bar.update()
        smallest = spectrum.min_eigenvalue(arrays["ntk"])
        bar.update()
        # The bounds are stated for sequences of one length.
        x, lengths = device(problem.train)
        bound = None if lengths is not None else bounds.min_eigenvalue(problem.rnn, x)
        bar.update()
    finite = arrays["empirical_ntk_eigenvalues"]
    minima = finite[:, :, 0]
    ratio = minima / smallest.value if smallest.resolved else None
    lower = dict(bound.lower) if bound else {}
    upper = dict(bound.upper) if bound else {}
    numbers = {
        "eigenvalues": eigenvalues,
        "trace": float(np.trace(arrays["ntk"])),
        "min_eigenvalue": asdict(smallest),
        "lower_bounds": lower,
        "upper_bounds": upper,
        "widths": list(widths),
        "empirical_min_eigenvalue": minima,
        "empirical_over_limit_mean": None if ratio is None else ratio.mean(axis=1),
        "empirical_over_limit_sd": (
            None if ratio is None or ratio.shape[1] < 2 else ratio.std(axis=1, ddof=1)
        ),
        "empirical_over_limit_worst": None if ratio is None else np.abs(ratio - 1).max(axis=1),
    }
    figures = {
        "spectrum": plot.spectrum(
            eigenvalues, dict(zip(widths, finite, strict=True)), dtype=arrays["ntk"].dtype
        ),
        "min_eigenvalue_by_width": plot.min_eigenvalue_by_width(widths, minima, smallest.value),
        "min_eigenvalue": plot.bounds(
            smallest.value, (smallest.lower, smallest.upper), lower, upper
        ),
    }
    return Outcome(numbers, {"ntk_eigenvalues": eigenvalues}, figures)


def predictions(problem: Problem, arrays: dict[str, np.ndarray], title: str) -> Outcome:
    """Kernel ridge regression with the two kernels and with those of simpler methods."""
    learn, test, targets = problem.train, problem.test, problem.targets
    flat, flat_test = (data.x.reshape(len(data), -1) for data in (learn, test))
    mean = flat.mean(axis=0)
    linear = linear_kernel(flat - mean)
    offset = max(float(np.mean(np.diag(linear))), 1e-300)  # a constant feature: the intercept
    squared = euclidean_distances(flat, squared=True)
    gammas = GAMMAS / max(float(np.median(squared[np.triu_indices(len(flat), 1)])), 1e-300)
    fitted: dict[str, Tuned] = {}
    extra: dict[str, dict[str, float]] = {}
    with tqdm(total=3 + len(gammas), desc=title) as bar:
        for name, key in (("NTK", "ntk"), ("NNGP", "nngp")):
            fitted[name] = tune(arrays[key], arrays[f"{key}_test_train"], targets)
            bar.update()
        for gamma in gammas:
            rbf = tune(
                rbf_kernel(flat, gamma=gamma), rbf_kernel(flat_test, flat, gamma=gamma), targets
            )
            if "RBF" not in fitted or rbf.loo_error < fitted["RBF"].loo_error:
                fitted["RBF"] = rbf
                extra["RBF"] = {"gamma": float(gamma)}
            bar.update()
        fitted["linear"] = tune(
            linear + offset, linear_kernel(flat_test - mean, flat - mean) + offset, targets
        )
        bar.update()
    constant = np.tile(targets.mean(axis=0), (len(test), 1))
    methods = {
        name: {
            "score": score(problem, result.predictions),
            "ridge": result.ridge,
            "relative_ridge": result.relative_ridge,
            "loo_mean_squared_error": result.loo_error,
            **extra.get(name, {}),
        }
        for name, result in fitted.items()
    }
    methods["constant"] = {"score": score(problem, constant)}
    metric = "test accuracy" if learn.is_classification else "test RMSE"
    figure = plot.scores({name: row["score"] for name, row in methods.items()}, metric)
    numbers = {
        "metric": metric,
        "test_sequences": len(test),
        "relative_ridges_tried": RIDGES,
        "methods": methods,
    }
    return Outcome(numbers, {"ntk_predictions": fitted["NTK"].predictions}, {"scores": figure})


def training(problem: Problem, arrays: dict[str, np.ndarray], title: str) -> Outcome:
    """Networks trained by SGD, beside the kernel's gradient flow for the same time.

    They are trained in float32: it is three times as fast, and rounding is far below the noise
    of the batches.
    """
    x, lengths = device(problem.train)
    widths = problem.settings.widths
    width = max((w for w in widths if w <= TRAINED_WIDTH), default=widths[0])
    n = len(problem.train)
    largest = float(arrays["ntk_eigenvalues"][-1])
    learning_rate = STEP_FRACTION * n / largest
    limits = np.finfo(np.float32)
    if not float(limits.tiny) <= learning_rate <= float(limits.max):
        raise ValueError(
            f"{problem.train.name}: the learning rate {learning_rate:g} cannot be held in float32; "
            "training and test tokens x differ too much in size."
        )
    trained = train.fit(
        problem.rnn,
        _key(problem, width, problem.settings.seeds),
        x.astype(jnp.float32),
        jnp.asarray(problem.targets, jnp.float32),
        width=width,
        learning_rate=learning_rate,
        steps=STEPS,
        seeds=problem.settings.seeds,
        batch_size=min(BATCH_SIZE, n),
        lengths=lengths,
        progress=True,
    )
    networks = _predict(trained, problem.test)
    ensemble = networks.mean(axis=0)
    time_reached = learning_rate * STEPS
    flow = predict.gradient_flow(
        arrays["ntk"], problem.targets, arrays["ntk_test_train"], time_reached
    )
    # Losses of single batches scatter: average them between steps that are even in the logarithm.
    edges = np.unique(np.logspace(0, np.log10(STEPS), 40).astype(int)) - 1
    losses = np.add.reduceat(np.asarray(trained.losses, np.float64), edges, axis=1)
    losses /= np.diff(edges, append=STEPS)
    # The loss of a step is that before its update.
    times = learning_rate * (edges + np.append(edges[1:], STEPS) - 1) / 2
    fitted = predict.gradient_flow(arrays["ntk"], problem.targets, arrays["ntk"], times)
    flow_losses = ((fitted - problem.targets) ** 2).sum(axis=(1, 2)) / (2 * n)
    flow_end = predict.gradient_flow(arrays["ntk"], problem.targets, arrays["ntk"], time_reached)
    end = _predict(trained, problem.train) - problem.targets
    scores = [score(problem, network) for network in networks]
    numbers = {
        "width": width,
        "seeds": len(networks),
        "learning_rate": learning_rate,
        "steps": STEPS,
        "batch_size": min(BATCH_SIZE, n),
        "time": time_reached,
        "dtype": "float32",
        "metric": "test accuracy" if problem.train.is_classification else "test RMSE",
        "network_scores": scores,
        "network_score_mean": float(np.mean(scores)),
        "network_score_sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "ensemble_score": score(problem, ensemble),
        "gradient_flow_score": score(problem, flow),
        "kernel_regression_score": score(problem, arrays["ntk_predictions"]),
        "relative_difference_to_gradient_flow": [_relative(f, flow) for f in networks],
        "ensemble_projection_on_gradient_flow": float(np.sum(ensemble * flow) / np.sum(flow**2)),
        "ensemble_difference_to_gradient_flow": _relative(ensemble, flow),
        "ensemble_difference_to_kernel_regression": _relative(ensemble, arrays["ntk_predictions"]),
        "final_losses": (end**2).sum(axis=(1, 2)) / (2 * n),
        "gradient_flow_final_loss": float(((flow_end - problem.targets) ** 2).sum() / (2 * n)),
        "loss_times": times,
        "network_losses": losses,
        "gradient_flow_losses": flow_losses,
    }
    figures = {
        "losses": plot.losses(times[1:], losses[:, 1:], flow_losses[1:]),
        "agreement": plot.predictions(flow.ravel(), ensemble.ravel()),
    }
    return Outcome(numbers, {}, figures)


def _predict(trained: train.Trained, data: Dataset) -> Float[np.ndarray, "s n o"]:
    """Predictions in pieces: the states of all seeds, sequences and steps need not fit at once."""
    pieces = []
    for index in np.array_split(np.arange(len(data)), -(-len(data) // 256)):
        x, lengths = device(data.take(index))
        pieces.append(np.asarray(trained.predict(x.astype(jnp.float32), lengths), np.float64))
    return np.concatenate(pieces, axis=1)


def device(data: Dataset) -> tuple[Float[Array, "n t d"], Int[Array, " n"] | None]:
    """Tokens and lengths as JAX arrays: float64 where the process has x64 on, else float32."""
    lengths = None if data.lengths is None else jnp.asarray(data.lengths)
    return jnp.asarray(data.x), lengths


def _key(problem: Problem, width: int, seed: int) -> Array:
    key = jax.random.key(problem.settings.seed)
    return jax.random.fold_in(jax.random.fold_in(key, width), seed)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
