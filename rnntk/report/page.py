"""report.html: one self-contained page, each figure with what is seen on it in plain words."""

import base64
import io
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from matplotlib.figure import Figure

from rnntk.report import learning, sections
from rnntk.report.results import Results
from rnntk.report.words import counted, number, table

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

SECTIONS: dict[str, tuple[str, Callable[[Results, Mapping[str, str]], str] | None]] = {
    "kernels": ("The infinite-width kernels", None),
    "widths": ("Finite networks and the infinite-width kernel", sections.widths),
    "spectrum": ("The spectrum and its smallest eigenvalue", sections.spectrum),
    "predictions": ("What the kernel predicts", sections.predictions),
    "training": ("What trained networks predict", learning.training),
    "comparison": ("How closely networks follow their kernels", learning.comparison),
}


def image(figure: Figure) -> str:
    """A figure as a data URI of its SVG, which needs no file and no font beside the page.

    Example:
        >>> import rnntk
        >>> image(rnntk.plot.scores({"NTK": 0.9}, "accuracy"))[:26]
        'data:image/svg+xml;base64,'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def html(results: Results, figures: Mapping[str, str], command: str) -> str:
    """The page for what is finished; stages that are not, or that failed, are named.

    Args:
        results: as far as they have come.
        figures: data URIs from :func:`image` by the figure's name.
        command: what repeats the report.
    """
    title = results.settings["title"] or (
        f"Tangent kernel of an Elman network on {results.data['name']}"
    )
    body = [f"<h1>{escape(title)}</h1>", *_warnings(results), _opening(results)]
    for name, (heading, section) in SECTIONS.items():
        if section is None and name not in results.failures:
            continue
        body.append(f'<section id="{name}"><h2>{heading}</h2>')
        if name in results.failures:
            body.append(_missing(f"This stage failed: {results.failures[name]}"))
        elif getattr(results, name) is None:
            body.append(_missing("This stage was not finished."))
        elif section is not None:
            body.append(section(results, figures))
        body.append("</section>")
    body.append("<section><h2>How this was computed</h2>" + _facts(results, command))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "</section>\n</body></html>\n"
    )


def _missing(text: str) -> str:
    return f'<p class="missing">{escape(text)}</p>'


def _warnings(results: Results) -> list[str]:
    failed = list(results.failures)
    open_stages = [
        name for name in SECTIONS if getattr(results, name) is None and name not in failed
    ]
    found = []
    if failed:
        found.append(_missing(f"Failed: {', '.join(failed)}. The reasons stand below."))
    if open_stages:
        found.append(
            _missing(f"Not finished: {', '.join(open_stages)}. What follows is complete in itself.")
        )
    return found


def _opening(results: Results) -> str:
    data, settings = results.data, results.settings
    n, t, d = data["train_shape"]
    layers = "one layer" if settings["depth"] == 1 else f"{settings['depth']} layers"
    both = ", read in both directions" if settings["bidirectional"] else ""
    return (
        f"<p>{n} training and {data['test_shape'][0]} test sequences of "
        f"{'' if data['equal_lengths'] else 'up to '}{t} steps, tokens of size {d}; "
        + (f"{len(data['classes'])} classes. " if data["classes"] else "labels are values. ")
        + (
            f"The class of {counted(data['unseen'], 'test sequence')} is not among those of the "
            "training, and counts as wrong. "
            if data["unseen"]
            else ""
        )
        + f"The network has {layers}{both}, activation {escape(settings['activation'])} and "
        f"readout {escape(settings['readout'])}; its kernel is computed at infinite width and "
        f"compared with networks of finite width.{_rescaling(data['token_exponent'])}</p>"
    )


def _rescaling(exponent: int) -> str:
    return (
        f" All tokens were multiplied by 2<sup>{exponent}</sup>, to bring them near one: kernels "
        f"and eigenvalues are those of the data as given times 4<sup>{exponent}</sup>."
        if exponent
        else ""
    )


def _facts(results: Results, command: str) -> str:
    settings, environment = results.settings, results.environment
    stds = ("w_std", "u_std", "b_std", "v_std")
    apart = ("device", "cpus", "dtype", "platform")
    rows = [
        ["command", command],
        ["device", f"{environment['device']}, {environment['cpus']} CPUs, {environment['dtype']}"],
        [
            "network",
            ", ".join(
                f"{key} {_fact(settings[key])}"
                for key in ("activation", *stds, "readout", "depth", "bidirectional", "trainable")
            ),
        ],
        ["versions", ", ".join(f"{k} {v}" for k, v in environment.items() if k not in apart)],
        ["platform", environment["platform"]],
        ["seconds", ", ".join(f"{k} {v:.1f}" for k, v in results.seconds.items())],
    ]
    return table([], rows, "facts") + (
        "<p>Every number is in results.json, the kernels and data are in kernels.npz, the options "
        "in config.toml.</p>"
    )


def _fact(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return number(value, 4) if isinstance(value, float) else str(value)
