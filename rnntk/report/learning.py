"""The sections on trained networks: their predictions, and how closely they follow kernels."""

from collections.abc import Mapping
from html import escape

import numpy as np

from rnntk.report import words
from rnntk.report.results import Comparison, Results, Training
from rnntk.report.words import MINUS, counted, number, percent, score, span, table

Figures = Mapping[str, str]
GAPS = {
    "gap_infinite": "outputs, to gradient flow with the infinite-width kernel",
    "gap_empirical": "outputs, to gradient flow with the network's initial kernel",
    "gap_linearized": "outputs, to the linearized network trained by the same steps",
    "kernel_drift": "kernel, to that at initialization",
    "flipped": "signs of pre-activations that changed",
}


def training(results: Results, figures: Figures) -> str:
    """Trained networks beside the flow, and those that diverged."""
    stage = results.training
    assert stage is not None
    lost = [count for count in stage.diverged if count >= 0]
    if len(lost) == stage.seeds:
        return f"<p>{escape(_all_lost(stage, results))}</p>"
    networks = f"{counted(stage.seeds - len(lost), 'network')} of width {stage.width}"
    mean = sum(stage.final_losses) / len(stage.final_losses)
    first = (
        f"{networks}, trained by SGD for {counted(stage.steps, 'step')} (batches of "
        f"{stage.batch_size}, learning rate {span(stage.learning_rates)}), "
        f"{'end' if len(stage.final_losses) > 1 else 'ends'} at a training loss of {number(mean)}"
        + (" on average" if len(stage.final_losses) > 1 else "")
        + f"; the kernel's gradient flow predicts {number(stage.flow_final_loss)} at the median of "
        "their times. The grey lines are losses of single batches, averaged over neighbouring "
        f"steps.{_some_lost(lost)}"
    )
    second = (
        "Each point is one output for one test sequence: the mean of the networks against the "
        "mean of the kernel's gradient flow at their training times. The networks' mean is "
        f"{number(stage.ensemble_projection_on_flow, 2)} times the kernel's prediction (least "
        f"squares); the two differ by {percent(stage.ensemble_difference_to_flow)} (root mean "
        f"square, relative); a single network by {span(stage.difference_to_flow, percent)}."
    )
    metric = stage.metric
    values = np.array(stage.scores)
    spread = f" ± {score(metric, float(values.std(ddof=1)))}" if len(values) > 1 else ""
    ntk = results.predictions.methods.get("NTK") if results.predictions else None
    rows = [
        ["networks, mean ± sd", score(metric, float(values.mean())) + spread],
        ["mean prediction of the networks", score(metric, stage.ensemble_score)],
        ["kernel, gradient flow, median time", score(metric, stage.flow_score)],
        ["kernel ridge regression", score(metric, ntk.score if ntk else None)],
    ]
    alt1, alt2 = (
        "Training loss of networks and kernel against time",
        "Test predictions of networks against the kernel",
    )
    return (
        words.figure("losses", figures["losses"], alt1, first)
        + words.figure("agreement", figures["agreement"], alt2, second)
        + table(["predictor", metric], rows)
    )


def _some_lost(lost: list[int]) -> str:
    if not lost:
        return ""
    overflowed, steps = sum(count == 0 for count in lost), [count for count in lost if count]
    reasons = []
    if steps:
        reasons.append(f"{counted(len(steps), 'network')} diverged after {span(steps)} steps")
    if overflowed:
        reasons.append(f"{counted(overflowed, 'network')} beyond the range of float32")
    return f" Left out: {', '.join(reasons)}."


def _all_lost(stage: Training, results: Results) -> str:
    """Why no network could be trained, and what would help."""
    t = results.data["train_shape"][1]
    return (
        f"No network of width {stage.width} could be trained, of {stage.seeds}: "
        f"of {sum(count == 0 for count in stage.diverged)} the kernel, its rate or the outputs are "
        "beyond the range of float32, "
        f"{sum(count > 0 for count in stage.diverged)} diverged, though the step was a "
        "sixteenth of what is stable for their own kernel, unless it was given. Over "
        f"{t} steps the gradients of so narrow a network grow by a random factor a step; widths "
        f"well above the number of steps, {2 * t} or more, or a smaller w_std keep them in range."
    )


def comparison(results: Results, figures: Figures) -> str:
    """Gaps to the kernels against width."""
    stage = results.comparison
    assert stage is not None
    networks = f"{counted(stage.seeds, 'network')} of each width"
    if not stage.widths and stage.overflowed:
        return f"<p>Nothing was compared.{_lost(stage)} A larger width keeps them in range.</p>"
    if np.isnan(stage.learning_rate):
        return (
            "<p>The infinite-width kernel, or the learning rate that is stable with it, is beyond "
            "the range of float32, in which networks are trained: nothing was compared. Other "
            "stds, or tokens of another size, keep it in range.</p>"
        )
    rows = [
        [
            GAPS[name],
            *(percent(v) for v in gap.median),
            _slope(gap.slope, gap.interval),
        ]
        for name, gap in stage.gaps.items()
    ]
    text = (
        f"{networks} and their linearizations, trained by SGD on {stage.sequences} sequences for "
        f"{counted(stage.steps, 'step')} (batches of {stage.batch_size}, learning rate "
        f"{number(stage.learning_rate)}, a sixteenth of what is stable at infinite width), beside "
        "gradient flow for the same time. Distances of outputs are root mean squares on the "
        f"training sequences, in units of the labels' own; medians over networks.{_lost(stage)}"
    )
    parts = [f"<p>{escape(text)}</p>"]
    if "by_width" in figures:
        caption = (
            "In the limit of large width the three distances vanish, those to the infinite-width "
            f"kernel like the width to the power {MINUS}1/2. Networks and flow also differ by the "
            "random batches and the finite steps, which no width removes; the linearized network "
            "shares both."
        )
        alt = "Distance of trained networks to their kernels, against width"
        parts.append(words.figure("by_width", figures["by_width"], alt, caption))
    head = ["distance", *(f"width {width}" for width in stage.widths), "slope"]
    return "".join(parts) + table(head, rows)


def _slope(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return number(None)
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]".replace("-", MINUS)


def _lost(stage: Comparison) -> str:
    lost = [
        f"{count} of width {width}"
        for width, count in zip(stage.widths, stage.diverged, strict=True)
        if count
    ]
    text = f" Diverged, and left out: {', '.join(lost)}." if lost else ""
    if stage.overflowed:
        text += (
            f" Left out: width {' and '.join(map(str, stage.overflowed))}, of which outputs of a "
            "network leave the range of float32 before the first step."
        )
    return text
