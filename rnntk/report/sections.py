"""The sections of the page: what each stage found, in words that its numbers bear out."""

from collections.abc import Mapping
from html import escape

import numpy as np

from rnntk.report import words
from rnntk.report.results import (
    Convergence,
    Method,
    Predictions,
    Results,
    Spectrum,
    Widths,
)
from rnntk.report.words import DASH, MINUS, counted, number, percent, score, span, table
from rnntk.spectrum import MinEigenvalue

Figures = Mapping[str, str]


def widths(results: Results, figures: Figures) -> str:
    """Deviations of finite networks from the limit."""
    stage = results.widths
    assert stage is not None
    shape, ntk = stage.kinds["ntk_unit_diagonal"], stage.kinds["ntk"]
    first, last = stage.widths[0], stage.widths[-1]
    networks = counted(stage.seeds, "network")
    traces = stage.trace_over_limit
    scale = (
        f"At width {first} the trace alone is {span(traces[0])} times that of the limit"
        + (f", at width {last} {span(traces[-1])} times" if len(stage.widths) > 1 else "")
        + ": one random factor for the whole matrix, which unit diagonals remove."
    )
    if shape.slope is None:
        reason = "One width defines" if len(stage.widths) == 1 else "Too few finite kernels define"
        caption = (
            f"Scaled to unit diagonal, the NTK of {networks} of width {first} deviates from the "
            f"infinite-width NTK by {percent(shape.geometric_mean[0])} (geometric mean over "
            f"networks, Frobenius norm). {reason} no slope. {scale}"
        )
    else:
        caption = (
            f"{_approach(shape)}Scaled to unit diagonal, the NTK's deviation from its limit goes "
            f"from {percent(shape.geometric_mean[0])} at width {first} to "
            f"{percent(shape.geometric_mean[-1])} at width {last} (geometric mean of {networks} a "
            f"width), with a fitted slope of {_slope(shape)}; without the scaling it is "
            f"{_slope(ntk)}. Theory says {MINUS}0.5: four times the width halves the deviation. "
            f"{scale}{_scatter(stage.kinds['nngp'])}"
        )
    if any(stage.overflowed):
        lost = ", ".join(
            f"{count} of width {width}"
            for width, count in zip(stage.widths, stage.overflowed, strict=True)
            if count
        )
        caption += (
            f" Left out are networks whose kernels leave the range of {_dtype(results)}: {lost}; "
            "gradients grow by a random factor a step, and more so the narrower the network."
        )
    kinds = ("ntk", "ntk_unit_diagonal", "nngp", "nngp_unit_diagonal")
    rows = [
        [str(width), *(percent(stage.kinds[kind].geometric_mean[i]) for kind in kinds)]
        for i, width in enumerate(stage.widths)
    ]
    if shape.slope is not None:
        rows.append(["slope", *(_slope(stage.kinds[kind]) for kind in kinds)])
    head = ["width", "NTK", "NTK, unit diagonal", "NNGP", "NNGP, unit diagonal"]
    alt = "Deviation from the infinite-width NTK against width"
    return words.figure("convergence", figures["convergence"], alt, caption) + table(head, rows)


def _dtype(results: Results) -> str:
    return str(results.environment["dtype"])


def _approach(kind: Convergence) -> str:
    """What the slope shows, and no more: that it is negative, beyond twice its error."""
    slope, error = kind.slope, kind.slope_standard_error
    if slope is None or error is None:
        return ""
    if slope + 2 * error < 0:
        return "The NTK of finite networks approaches its limit. "
    return (
        "Within twice its error the slope is not negative: these widths and seeds are too few to "
        "show an approach to the limit. "
    )


def _scatter(nngp: Convergence) -> str:
    if nngp.slope is None or abs(nngp.slope + 0.5) <= 0.25:
        return ""
    return (
        f" The NNGP's slope of {_slope(nngp)} is far from {MINUS}0.5: each network carries one "
        "heavy-tailed random scale, so that few seeds scatter."
    )


def _slope(kind: Convergence) -> str:
    if kind.slope is None:
        return number(None)
    error = kind.slope_standard_error
    return f"{kind.slope:.2f}".replace("-", MINUS) + ("" if error is None else f" ± {error:.2f}")


def spectrum(results: Results, figures: Figures) -> str:
    """Eigenvalues, the smallest one between its bounds, and at finite width."""
    stage = results.spectrum
    assert stage is not None
    values = stage.eigenvalues
    broken = " Broken lines are the finite networks, averaged over seeds." if results.widths else ""
    lost = (
        f" {stage.unresolved} of them are as small as rounding in {_dtype(results)}, and not "
        "resolved."
        if stage.unresolved
        else ""
    )
    low = values[min(stage.unresolved, len(values) - 1)]
    caption = (
        f"The {len(values)} eigenvalues run from {number(low)} to {number(values[-1])}; the "
        f"largest alone is {percent(values[-1] / stage.trace)} of their sum.{lost}{broken}"
    )
    alt = "Eigenvalues of the NTK in descending order"
    parts = [words.figure("spectrum", figures["spectrum"], alt, caption)]
    alt = "The smallest eigenvalue between its bounds"
    caption = _min_eigenvalue(stage)
    parts.append(words.figure("min_eigenvalue", figures["min_eigenvalue"], alt, caption))
    if results.widths is not None:
        alt, (text, rows) = "Smallest eigenvalue against width", _by_width(results)
        name = "min_eigenvalue_by_width"
        drawn = name in figures
        parts.append(
            words.figure(name, figures[name], alt, text) if drawn else f"<p>{escape(text)}</p>"
        )
        parts.append(rows)
    return "".join(parts)


def interval(smallest: MinEigenvalue) -> str:
    """A smallest eigenvalue with the half-width of its interval, and whether that is proved."""
    radius = max(smallest.upper - smallest.value, smallest.value - smallest.lower)
    kind = "certified for the matrix as computed" if smallest.certified else "estimated"
    return f"{number(smallest.value, 6)} ± {number(radius, 2)} ({kind})"


def _min_eigenvalue(stage: Spectrum) -> str:
    smallest, lower, upper = stage.min_eigenvalue, stage.lower_bounds, stage.upper_bounds
    exact = (
        ""
        if stage.certificate is None
        else f" That of the exact kernel lies between {number(stage.certificate[0], 6)} and "
        f"{number(stage.certificate[1], 6)}: certified, in certificate.npz."
    )
    if not smallest.resolved:
        return (
            f"The smallest eigenvalue is not resolved: it lies between {number(smallest.lower)} "
            f"and {number(smallest.upper)}, as small as rounding; duplicate sequences make it "
            f"zero.{exact}"
        )
    text = f"The smallest eigenvalue is {interval(smallest)}.{exact}"
    if not lower or not upper:
        return text + " The bounds are stated for sequences of one length, and are left out."
    best = max(lower, key=lambda name: lower[name])
    least = min(upper, key=lambda name: upper[name])
    return text + (
        f" The best lower bound, {best}, reaches {percent(lower[best] / smallest.value)} of it, "
        f"and the best upper bound, {least}, is {number(upper[least] / smallest.value)} times as "
        "large."
    )


def _by_width(results: Results) -> tuple[str, str]:
    """The smallest eigenvalues of finite networks: what they show, and the table."""
    stage, finite = results.spectrum, results.widths
    assert stage is not None
    assert finite is not None
    if stage.over_limit is None:
        text = (
            "The smallest eigenvalue of the limit is not resolved, so that finite networks cannot "
            "be set in proportion to it."
        )
        rows = [
            [str(width), number(_mean(row))]
            for width, row in zip(finite.widths, finite.min_eigenvalues, strict=True)
        ]
        return text, table(["width", "mean"], rows)
    means = [_mean(row) for row in stage.over_limit]
    worst = [_worst(row) for row in stage.over_limit]
    limit = f"the limit's {number(stage.min_eigenvalue.value)}"
    told = [
        f"At width {finite.widths[i]} the smallest eigenvalue of a finite network's NTK is on "
        f"average {percent(means[i])} of {limit}, and every network is within {percent(worst[i])} "
        "of it."
        for i in sorted({0, len(means) - 1}, reverse=True)
        if means[i] is not None
    ]
    text = " ".join(told or [f"No network's smallest eigenvalue compares with {limit}."])
    text += _not_resolved(finite)
    rows = [
        [str(width), number(mean), number(_spread(row), 2), percent(far)]
        for width, mean, row, far in zip(finite.widths, means, stage.over_limit, worst, strict=True)
    ]
    return text, table(["width", "mean over limit", "sd over seeds", "all within"], rows)


def _not_resolved(finite: Widths) -> str:
    if not any(finite.unresolved):
        return ""
    lost = ", ".join(
        f"{count} of width {width}"
        for width, count in zip(finite.widths, finite.unresolved, strict=True)
        if count
    )
    return f" Left out are networks whose smallest eigenvalue rounding may have made: {lost}."


def _finite(values: np.ndarray) -> tuple[np.ndarray, float]:
    """What is finite, over its largest magnitude, whose squares and sums may leave the range."""
    kept = values[np.isfinite(values)]
    size = float(np.abs(kept).max(initial=0.0)) or 1.0
    return kept / size, size


def _mean(values: np.ndarray) -> float | None:
    kept, size = _finite(values)
    return float(kept.mean()) * size if kept.size else None


def _spread(values: np.ndarray) -> float | None:
    kept, size = _finite(values)
    return float(kept.std(ddof=1)) * size if kept.size > 1 else None


def _worst(values: np.ndarray) -> float | None:
    kept = values[np.isfinite(values)]
    return float(np.abs(kept - 1).max()) if kept.size else None


def predictions(results: Results, figures: Figures) -> str:
    """Scores of the regressions."""
    stage = results.predictions
    assert stage is not None
    n, metric = results.data["train_shape"][0], stage.metric
    scores = {name: score(metric, method.score) for name, method in stage.methods.items()}
    fitted = [name for name in scores if name != "constant"]
    constant = "the most frequent class" if "accuracy" in metric else "the mean"
    caption = (
        f"From {counted(n, 'training sequence')}, ridge regression reaches a {metric} of "
        + (", ".join(f"{scores[name]} with {_kernel(name)}" for name in fitted) or "nothing")
        + f", on {counted(stage.test_sequences, 'test sequence')}; {constant} alone "
        f"{scores['constant']}. {_best(stage)}"
    )
    rows = [[name, scores[name], _ridge(method)] for name, method in stage.methods.items()]
    chosen = (
        f"Each ridge, given relative to the mean of the kernel's diagonal, is the one with the "
        f"least leave-one-out error on the training sequences, of {number(stage.ridges[0])} to "
        f"{number(stage.ridges[-1])}; so is the RBF kernel's width."
        if len(stage.ridges) > 1
        else "The ridge, relative to the mean of each kernel's diagonal, was given."
    )
    failed = "".join(
        f" T{_kernel(name)[1:]} could not be fitted: {reason}"
        for name, reason in stage.failed.items()
    )
    return (
        words.figure("scores", figures["scores"], f"{metric} of each method", caption)
        + table(["method", metric, "relative ridge"], rows)
        + f"<p>{escape(chosen + ' RBF and linear read each sequence as one vector, ')}"
        f"{escape('standardized on the training sequences.' + failed)}</p>"
    )


def _kernel(name: str) -> str:
    return {"NTK": "the NTK", "NNGP": "the NNGP kernel", "RBF": "the RBF kernel"}.get(
        name, f"the {name} kernel"
    )


def _ridge(method: Method) -> str:
    return DASH if method.relative_ridge is None else number(method.relative_ridge, 2)


def _best(stage: Predictions) -> str:
    """The best method, or those that tie, as far as the test sequences tell them apart."""
    accuracy = "accuracy" in stage.metric
    values = {name: method.score for name, method in stage.methods.items()}
    top = (max if accuracy else min)(values.values())
    best = [name for name, value in values.items() if value == top]
    if len(best) == len(values):
        return "All methods tie."
    text = f"The best is {best[0]}" if len(best) == 1 else f"{' and '.join(best)} tie as the best"
    if not accuracy:
        return text + ". Smaller is better; the unit is that of the labels."
    error = 100 * (top * (1 - top) / stage.test_sequences) ** 0.5
    if error == 0:
        return text + f", right on all of {counted(stage.test_sequences, 'test sequence')}."
    return text + (
        f"; an accuracy near it has a standard error of {error:.1f} points from the choice of "
        "test sequences."
    )
