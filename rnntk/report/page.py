"""report.html: one self-contained page, each figure with what is seen on it in plain words."""

import base64
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

Results = Mapping[str, Any]

STYLE = """
:root { color-scheme: light; }
body { font: 1rem/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 44rem;
       margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
h1, h2 { break-after: avoid; }
figure { margin: 1.5rem 0; break-inside: avoid; }
img { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto; }
figcaption { margin-top: .5rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; break-inside: avoid;
        display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #bbb; text-align: right;
         vertical-align: top; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.facts td { text-align: left; }
table.facts td + td { white-space: normal; overflow-wrap: anywhere; }
.missing { border: 1px solid #111; padding: .5rem .8rem; font-weight: bold; }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } img { max-width: 12cm; } }
"""


def image(figure: Figure) -> str:
    """A figure as a data URI of its SVG, which needs no file and no font beside the page.

    Example:
        >>> import rnntk.report.page
        >>> figure = rnntk.plot.scores({"NTK": 0.9}, "accuracy")
        >>> rnntk.report.page.image(figure)[:26]
        'data:image/svg+xml;base64,'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def html(results: Results, figures: Mapping[str, str]) -> str:
    """The page for what is finished; stages not finished are named.

    Args:
        results: what results.json holds.
        figures: data URIs from :func:`image` by the figure's name.
    """
    data = results["data"]
    n, t, d = data["train_shape"]
    title = f"Tangent kernel of an Elman network on {data['name']}"
    missing = results["missing_stages"]
    body = [f"<h1>{escape(title)}</h1>"]
    if missing:
        body.append(
            f'<p class="missing">Not finished: {escape(", ".join(missing))}. '
            "What follows is complete in itself.</p>"
        )
    network = results["network"]
    body.append(
        f"<p>{n} training and {data['test_shape'][0]} test sequences of "
        f"{'' if data['equal_lengths'] else 'up to '}{t} steps, tokens of size {d}; "
        + (f"{len(data['classes'])} classes. " if data["classes"] else "labels are values. ")
        + f"The network has one layer, activation {escape(str(network['activation']))} and "
        f"readout {escape(network['readout'])}; its kernel is computed at infinite width and "
        "compared with networks of finite width." + _rescaling(data["token_exponent"]) + "</p>"
    )
    for name, (heading, section) in SECTIONS.items():
        body.append(f'<section id="{name}"><h2>{heading}</h2>')
        if name in results:
            body.append(section(results, figures))
        else:
            body.append('<p class="missing">This stage was not finished.</p>')
        body.append("</section>")
    body.append("<section><h2>How this was computed</h2>" + _facts(results) + "</section>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _rescaling(exponent: int) -> str:
    return (
        f" All tokens were multiplied by 2<sup>{exponent}</sup>, to bring them near one: kernels "
        f"and eigenvalues are those of the data as given times 4<sup>{exponent}</sup>."
        if exponent
        else ""
    )


def _figure(name: str, figures: Mapping[str, str], alt: str, caption: str) -> str:
    return (
        f'<figure id="{name}"><img src="{figures[name]}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    attribute = f' class="{kind}"' if kind else ""
    return f"<table{attribute}>{top}<tbody>{''.join(lines)}</tbody></table>"


def number(value: float | None, digits: int = 3) -> str:
    """A number as a reader wants it: few digits, powers of ten written out.

    Example:
        >>> number(0.12345), number(1.5e-9)[-4:], number(None)
        ('0.123', '10⁻⁹', 'not defined')
    """
    if value is None:
        return "not defined"
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:.15g}"
    if not 1e-3 <= abs(rounded) < 1e5 and rounded != 0:
        mantissa, exponent = f"{rounded:e}".split("e")
        mantissa = f"{float(mantissa):.15g}"
        powers = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}\N{MULTIPLICATION SIGN}10{powers}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(smallest: Results) -> str:
    """A smallest eigenvalue with the half-width of its interval, and whether that is proved."""
    radius = max(smallest["upper"] - smallest["value"], smallest["value"] - smallest["lower"])
    kind = "certified for the matrix as computed" if smallest["certified"] else "estimated"
    return f"{number(smallest['value'], 6)} ± {number(radius, 2)} ({kind})"


def _percent(value: float | None) -> str:
    if value is None:
        return number(None)
    return f"{100 * value:.1f}%" if abs(value) >= 0.01 else f"{number(100 * value)}%"


def score(metric: str, value: float | None) -> str:
    """An accuracy in percent, or an error in the units of the labels."""
    if value is None or metric != "test accuracy":
        return number(value)
    return f"{100 * value:.1f}%"


def _range(values: Sequence[float | None], form: Callable[[float | None], str] = number) -> str:
    known = [value for value in values if value is not None]
    return f"{form(min(known))} to {form(max(known))}" if known else number(None)


def _kernels(results: Results, figures: Mapping[str, str]) -> str:
    stage = results["kernels"]
    widths, ntk, shape = stage["widths"], stage["ntk"], stage["ntk_unit_diagonal"]
    means, traces = shape["geometric_mean"], stage["ntk_trace_over_limit"]
    networks = f"{stage['seeds']} network{'s' if stage['seeds'] > 1 else ''}"
    scale = (
        f"At width {widths[0]} the trace alone is {_range(traces[0])} times that of the limit"
        + (f", at width {widths[-1]} {_range(traces[-1])} times" if len(widths) > 1 else "")
        + ": one random factor for the whole matrix, which unit diagonals remove."
    )
    if shape["slope"] is None:
        caption = (
            f"Scaled to unit diagonal, the NTK of {networks} of width {widths[0]} deviates from "
            f"the infinite-width NTK by {_percent(means[0])} (geometric mean over networks, "
            f"Frobenius norm). One width defines no slope; two or more do. {scale}"
        )
    else:
        caption = (
            f"{_approach(shape)}Scaled to unit diagonal, the NTK's deviation from its limit goes "
            f"from {_percent(means[0])} at width {widths[0]} to "
            f"{_percent(means[-1])} at width {widths[-1]} (geometric mean of {networks} a width), "
            f"with a fitted slope of {_slope(shape)}; without the scaling it is {_slope(ntk)}. "
            f"Theory says \N{MINUS SIGN}0.5: four times the width halves the deviation. {scale}"
            f"{_scatter(stage['nngp'])}"
        )
    kinds = ("ntk", "ntk_unit_diagonal", "nngp", "nngp_unit_diagonal")
    rows = [
        [str(width), *(_percent(stage[kind]["geometric_mean"][i]) for kind in kinds)]
        for i, width in enumerate(widths)
    ]
    if shape["slope"] is not None:
        rows.append(["slope", *(_slope(stage[kind]) for kind in kinds)])
    head = ["width", "NTK", "NTK, unit diagonal", "NNGP", "NNGP, unit diagonal"]
    alt = "Deviation from the infinite-width NTK against width"
    return _figure("convergence", figures, alt, caption) + _table(head, rows)


def _approach(kind: Results) -> str:
    """What the slope shows, and no more: that it is negative, beyond twice its error."""
    slope, error = kind["slope"], kind["slope_standard_error"]
    if error is None:
        return ""
    if slope + 2 * error < 0:
        return "The NTK of finite networks approaches its limit. "
    return (
        "Within twice its error the slope is not negative: these widths and seeds are too few to "
        "show an approach to the limit. "
    )


def _scatter(nngp: Results) -> str:
    if nngp["slope"] is None or abs(nngp["slope"] + 0.5) <= 0.25:
        return ""
    return (
        f" The NNGP's slope of {_slope(nngp)} is far from \N{MINUS SIGN}0.5: each network carries "
        "one heavy-tailed random scale, so that few seeds scatter."
    )


def _slope(kind: Results) -> str:
    error = kind["slope_standard_error"]
    if kind["slope"] is None:
        return number(None)
    return f"{kind['slope']:.2f}".replace("-", "\N{MINUS SIGN}") + (
        "" if error is None else f" ± {error:.2f}"
    )


def _spectrum(results: Results, figures: Mapping[str, str]) -> str:
    stage = results["spectrum"]
    eigenvalues, smallest = stage["eigenvalues"], stage["min_eigenvalue"]
    largest = eigenvalues[-1]
    caption = (
        f"The {len(eigenvalues)} eigenvalues run from {number(eigenvalues[0])} to "
        f"{number(largest)}; the largest alone is {_percent(largest / stage['trace'])} of their "
        "sum. Broken lines are the finite networks, averaged over seeds."
    )
    parts = [_figure("spectrum", figures, "Eigenvalues of the NTK in descending order", caption)]
    parts.append(
        _figure(
            "min_eigenvalue",
            figures,
            "The smallest eigenvalue between its bounds",
            _min_eigenvalue_caption(stage),
        )
    )
    widths, minima = stage["widths"], stage["empirical_min_eigenvalue"]
    mean, sd = stage["empirical_over_limit_mean"], stage["empirical_over_limit_sd"]
    if mean is None:
        text = (
            "The smallest eigenvalue of the limit is not resolved, so that finite networks cannot "
            "be set in proportion to it."
        )
        rows = [
            [str(w), number(sum(row) / len(row))] for w, row in zip(widths, minima, strict=True)
        ]
        table = _table(["width", "mean"], rows)
    else:
        worst = stage["empirical_over_limit_worst"]
        text = (
            f"At width {widths[-1]} the smallest eigenvalue of a finite network's NTK is on "
            f"average {_percent(mean[-1])} of the limit's {number(smallest['value'])}, and every "
            f"network is within {_percent(worst[-1])} of it"
            + (
                f"; at width {widths[0]} it is {_percent(mean[0])}, within {_percent(worst[0])}."
                if len(widths) > 1
                else "."
            )
        )
        rows = [
            [
                str(w),
                number(m),
                "\N{EN DASH}" if sd is None else number(sd[i], 2),
                _percent(worst[i]),
            ]
            for i, (w, m) in enumerate(zip(widths, mean, strict=True))
        ]
        table = _table(["width", "mean over limit", "sd over seeds", "all within"], rows)
    parts.append(
        _figure("min_eigenvalue_by_width", figures, "Smallest eigenvalue against width", text)
    )
    return "".join(parts) + table


def _min_eigenvalue_caption(stage: Results) -> str:
    smallest, lower, upper = stage["min_eigenvalue"], stage["lower_bounds"], stage["upper_bounds"]
    if not smallest["resolved"]:
        return (
            f"The smallest eigenvalue is not resolved: it lies between {number(smallest['lower'])} "
            f"and {number(smallest['upper'])}, as small as rounding; duplicate sequences make it "
            "zero."
        )
    text = f"The smallest eigenvalue is {interval(smallest)}."
    if not lower or not upper:
        return text + " The bounds are stated for sequences of one length, and are left out."
    best = max(lower, key=lambda name: lower[name])
    least = min(upper, key=lambda name: upper[name])
    return text + (
        f" The best lower bound, {best}, reaches {_percent(lower[best] / smallest['value'])} of "
        f"it, and the best upper bound, {least}, is {number(upper[least] / smallest['value'])} "
        "times as large."
    )


def _predictions(results: Results, figures: Mapping[str, str]) -> str:
    stage = results["predictions"]
    metric, methods = stage["metric"], stage["methods"]
    n, m = results["data"]["train_shape"][0], stage["test_sequences"]
    scores = {name: score(metric, row["score"]) for name, row in methods.items()}
    accuracy = metric == "test accuracy"
    best = (max if accuracy else min)(methods, key=lambda name: methods[name]["score"])
    p = methods[best]["score"]
    caption = (
        f"From {n} training sequences, ridge regression with the NTK reaches a {metric} of "
        f"{scores['NTK']} and with the NNGP kernel {scores['NNGP']}, on {m} test sequences; RBF "
        f"kernel {scores['RBF']}, linear {scores['linear']}, "
        f"{'the most frequent class' if accuracy else 'the mean'} {scores['constant']}. The best "
        f"is {best}"
        + (
            f"; an accuracy near it has a standard error of "
            f"{100 * (p * (1 - p) / m) ** 0.5:.1f} points from the choice of test sequences."
            if accuracy
            else ". Smaller is better; the unit is that of the labels."
        )
    )
    rows = [
        [
            name,
            scores[name],
            number(row["relative_ridge"], 2) if "relative_ridge" in row else "\N{EN DASH}",
        ]
        for name, row in methods.items()
    ]
    ridges = stage["relative_ridges_tried"]
    note = (
        "<p>Each ridge, given relative to the mean of the kernel's diagonal, is the one with the "
        f"least leave-one-out error on the training sequences, of {number(ridges[0])} to "
        f"{number(ridges[-1])}; so is the RBF kernel's width. RBF and linear read each sequence as "
        "one vector.</p>"
    )
    return (
        _figure("scores", figures, f"{metric} of each method", caption)
        + _table(["method", metric, "relative ridge"], rows)
        + note
    )


def _training(results: Results, figures: Mapping[str, str]) -> str:
    stage = results["training"]
    metric = stage["metric"]
    losses, flow = stage["final_losses"], stage["gradient_flow_final_loss"]
    networks = (
        f"{stage['seeds']} networks of width {stage['width']}"
        if stage["seeds"] > 1
        else f"A network of width {stage['width']}"
    )
    first = (
        f"{networks}, trained by SGD for {stage['steps']} steps (batches of "
        f"{stage['batch_size']}, learning rate {number(stage['learning_rate'])}), end at a "
        f"training loss of {number(sum(losses) / len(losses))}"
        + (" on average" if len(losses) > 1 else "")
        + f"; the kernel's gradient flow predicts {number(flow)} at that time. The grey lines are "
        "losses of single batches, averaged over neighbouring steps."
    )
    differences = stage["relative_difference_to_gradient_flow"]
    second = (
        "Each point is one output for one test sequence: the mean of the networks against the "
        "kernel's gradient flow at the same training time. The networks' mean is "
        f"{number(stage['ensemble_projection_on_gradient_flow'], 2)} times the kernel's prediction "
        "(least squares); the two differ by "
        f"{_percent(stage['ensemble_difference_to_gradient_flow'])} (root mean square, relative); "
        f"a single network by {_range(differences, _percent)}."
    )
    sd = stage["network_score_sd"]
    spread = "" if sd is None else f" ± {score(metric, sd)}"
    rows = [
        ["networks, mean ± sd", score(metric, stage["network_score_mean"]) + spread],
        ["mean prediction of the networks", score(metric, stage["ensemble_score"])],
        ["kernel, gradient flow, same time", score(metric, stage["gradient_flow_score"])],
        ["kernel ridge regression", score(metric, stage["kernel_regression_score"])],
    ]
    return (
        _figure("losses", figures, "Training loss of networks and kernel against time", first)
        + _figure("agreement", figures, "Test predictions of networks against the kernel", second)
        + _table(["predictor", metric], rows)
    )


def _facts(results: Results) -> str:
    settings, environment = results["settings"], results["environment"]
    rows = [
        ["command", command(settings)],
        ["device", f"{environment['device']}, {environment['cpus']} CPUs, {environment['dtype']}"],
        ["network", ", ".join(f"{key} {_fact(v)}" for key, v in results["network"].items())],
        [
            "versions",
            ", ".join(
                f"{key} {environment[key]}"
                for key in environment
                if key not in ("device", "cpus", "dtype", "platform")
            ),
        ],
        ["platform", environment["platform"]],
        ["seconds", ", ".join(f"{k} {v:.1f}" for k, v in results["seconds"].items())],
    ]
    return _table([], rows, "facts") + (
        "<p>Every number is in results.json, the kernels and data are in kernels.npz.</p>"
    )


def _fact(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return number(value, 4) if isinstance(value, float) else str(value)


def command(settings: Results) -> str:
    """The command line that repeats a report."""
    parts = ["rnntk", "report", "--data", *settings["data"]]
    if settings["n"] is not None:
        parts += ["--n", str(settings["n"])]
    parts += ["--widths", ",".join(map(str, settings["widths"]))]
    parts += ["--seeds", str(settings["seeds"]), "--out", settings["out"]]
    return shlex.join(parts)


SECTIONS: dict[str, tuple[str, Callable[[Results, Mapping[str, str]], str]]] = {
    "kernels": ("Finite networks and the infinite-width kernel", _kernels),
    "spectrum": ("The spectrum and its smallest eigenvalue", _spectrum),
    "predictions": ("What the kernel predicts", _predictions),
    "training": ("What trained networks predict", _training),
}
