"""The results of a report: one dataclass a stage, and the file that holds them.

results.json holds a :class:`Results`: nested objects of these fields, arrays as lists, what is not
finite as null. ``schema`` grows by one whenever a field is renamed or changes its meaning.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from rnntk.spectrum import MinEigenvalue

SCHEMA = 2


@dataclass(frozen=True)
class Kernels:
    """The infinite-width kernels of the training sequences; the matrices are in kernels.npz."""

    ntk_trace: float
    nngp_trace: float


@dataclass(frozen=True, eq=False)
class Convergence:
    """How a kind of kernel approaches its limit.

    Attributes:
        deviations: relative Frobenius norm of the difference, for each width and seed; NaN where
            the kernel of a network overflows.
        geometric_mean: over the seeds, by width.
        slope: of log deviation on log width; None of one width, or where too little is finite.
        slope_standard_error: None where two points leave no residual.
    """

    deviations: Float[np.ndarray, "w s"]
    geometric_mean: Float[np.ndarray, " w"]
    slope: float | None
    slope_standard_error: float | None


@dataclass(frozen=True, eq=False)
class Widths:
    """Finite networks beside the infinite-width kernel.

    Attributes:
        widths: ascending.
        seeds: networks of each width.
        overflowed: networks of each width whose kernel leaves the dtype's range.
        trace_over_limit: trace of the NTK over that of the limit, for each width and seed.
        kinds: :class:`Convergence` by kind: "ntk", "nngp", and both scaled to unit diagonal.
        min_eigenvalues: smallest eigenvalues of the NTK, for each width and seed; NaN where they
            are not resolved, as small as rounding.
        unresolved: networks of each width of which it is not resolved.
    """

    widths: tuple[int, ...]
    seeds: int
    overflowed: tuple[int, ...]
    trace_over_limit: Float[np.ndarray, "w s"]
    kinds: dict[str, Convergence]
    min_eigenvalues: Float[np.ndarray, "w s"]
    unresolved: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of the infinite-width NTK.

    Attributes:
        eigenvalues: ascending.
        unresolved: how many of them rounding may have made.
        trace: their sum.
        min_eigenvalue: the smallest one, with its interval.
        certificate: ends of the enclosure of the exact kernel's, where asked for.
        lower_bounds: by name; none for sequences of unequal lengths.
        upper_bounds: likewise.
        over_limit: for each width and seed the smallest eigenvalue of a finite network over that
            of the limit; None where the latter is not resolved, or there are no networks.
    """

    eigenvalues: Float[np.ndarray, " n"]
    unresolved: int
    trace: float
    min_eigenvalue: MinEigenvalue
    certificate: tuple[float, float] | None
    lower_bounds: dict[str, float]
    upper_bounds: dict[str, float]
    over_limit: Float[np.ndarray, "w s"] | None


@dataclass(frozen=True)
class Method:
    """A predictor on the test sequences.

    Attributes:
        score: by the metric of the task.
        ridge: added to the kernel's diagonal; None of the constant.
        relative_ridge: the same over the mean of the diagonal.
        leave_one_out: mean squared error of the training targets.
        gamma: of the RBF kernel.
    """

    score: float
    ridge: float | None = None
    relative_ridge: float | None = None
    leave_one_out: float | None = None
    gamma: float | None = None


@dataclass(frozen=True)
class Predictions:
    """Regressions with the kernels, and simpler methods.

    Attributes:
        metric: "test accuracy", or "test RMSE" in the labels' units.
        test_sequences: how many.
        ridges: relative ridges that were tried.
        methods: by name.
        failed: methods that could not be fitted, each with the reason.
    """

    metric: str
    test_sequences: int
    ridges: tuple[float, ...]
    methods: dict[str, Method]
    failed: dict[str, str]


@dataclass(frozen=True, eq=False)
class Training:
    """Networks trained by SGD, beside the kernel's gradient flow for the same times.

    Attributes:
        width: of the networks.
        seeds: how many.
        steps: updates.
        batch_size: sequences of an update.
        dtype: of the training.
        learning_rates: of each network; NaN where its kernel overflows.
        diverged: for each network the update after which it was not finite; -1 if it is finite, and
            0 if its kernel or outputs overflow before the first.
        metric: as of the predictions.
        scores: of the networks that are finite.
        ensemble_score: of their mean prediction; None if there is none.
        flow_score: of the kernel's gradient flow at the median of their times.
        difference_to_flow: relative difference of each one's test predictions to the flow's.
        ensemble_difference_to_flow: of their mean to the mean of the flows.
        ensemble_projection_on_flow: factor by which the flow is closest to their mean.
        loss_times: learning rate times step of each network, shape (finite networks, k).
        losses: training losses there, averaged over neighbouring steps.
        flow_times: where the flow's loss is given.
        flow_losses: of the kernel.
        final_losses: of each network on all training sequences.
        flow_final_loss: of the flow at the median time.
    """

    width: int
    seeds: int
    steps: int
    batch_size: int
    dtype: str
    learning_rates: Float[np.ndarray, " s"]
    diverged: tuple[int, ...]
    metric: str
    scores: tuple[float, ...] = ()
    ensemble_score: float | None = None
    flow_score: float | None = None
    difference_to_flow: tuple[float, ...] = ()
    ensemble_difference_to_flow: float | None = None
    ensemble_projection_on_flow: float | None = None
    loss_times: Float[np.ndarray, "f k"] | None = None
    losses: Float[np.ndarray, "f k"] | None = None
    flow_times: Float[np.ndarray, " p"] | None = None
    flow_losses: Float[np.ndarray, " p"] | None = None
    final_losses: tuple[float, ...] = ()
    flow_final_loss: float | None = None


@dataclass(frozen=True, eq=False)
class Gap:
    """One measure of how far networks are from their kernels, at the end of the training.

    Attributes:
        median: over the networks of each width that are finite; NaN where there is none.
        slope: exponent of its power law in the width; None where it has none.
        interval: of the slope, 95%, by bootstrap over the networks.
    """

    median: Float[np.ndarray, " w"]
    slope: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Networks of several widths beside their kernels, from :func:`rnntk.compare.with_kernel`.

    Attributes:
        widths: of the networks that are compared.
        seeds: networks of each width.
        steps: updates.
        batch_size: sequences of an update.
        sequences: trained on, which the gaps are measured on.
        learning_rate: of all; NaN where nothing was trained.
        overflowed: widths left out, as outputs of a network overflow before the first step.
        diverged: networks of each width that are not finite in the end.
        gaps: by the name of the column.
    """

    widths: tuple[int, ...]
    seeds: int
    steps: int
    batch_size: int
    sequences: int
    learning_rate: float = float("nan")
    overflowed: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    gaps: dict[str, Gap] = field(default_factory=dict)


@dataclass
class Results:
    """A report, as far as it has come.

    Attributes:
        schema: version of this layout.
        settings: the options, by name.
        data: name, kind and sizes of the data.
        environment: versions, device and dtype.
        seconds: time of each finished stage.
        failures: stages that failed, each with the reason.
        kernels: None, like the others, while the stage is not finished.
    """

    settings: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]
    schema: int = SCHEMA
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    kernels: Kernels | None = None
    widths: Widths | None = None
    spectrum: Spectrum | None = None
    predictions: Predictions | None = None
    training: Training | None = None
    comparison: Comparison | None = None

    def json(self) -> str:
        """What results.json holds."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    """The same numbers as JSON knows them; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
