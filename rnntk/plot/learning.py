"""Figures of what kernels and networks have learnt: scores, losses, predictions."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnntk.plot.style import COLORS, axes_of, positive


def scores(values: Mapping[str, float], metric: str, *, ax: Axes | None = None) -> Figure:
    """Test scores of several methods as bars, in the order given.

    Args:
        values: score by the method's name.
        metric: what the score is, the label of its axis.
        ax: axes to draw on.

    Example:
        >>> import rnntk
        >>> rnntk.plot.scores({"NTK": 0.9, "RBF": 0.8}, "accuracy").axes[0].get_xlabel()
        'accuracy'
    """
    figure, ax = axes_of(ax)
    names = list(values)
    ax.barh(names, list(values.values()), color="0.75", edgecolor="0.2", height=0.6)
    for y, value in enumerate(values.values()):
        ax.annotate(
            f"{value:.3g}", (value, y), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    top = max(values.values())
    ax.set_xlim(0, 1.15 * top if top > 0 else 1.0)
    ax.invert_yaxis()
    ax.set_xlabel(metric)
    return figure


def losses(
    times: Float[np.ndarray, "s k"],
    trained: Float[np.ndarray, "s k"],
    predicted_times: Float[np.ndarray, " p"],
    predicted: Float[np.ndarray, " p"],
    *,
    ax: Axes | None = None,
) -> Figure:
    """Training loss of finite networks, and of the kernel's gradient flow, both logarithmic.

    Args:
        times: learning rate times steps of each network, a row for each seed.
        trained: losses of the networks there.
        predicted_times: times of the gradient flow.
        predicted: its losses.
        ax: axes to draw on.

    Example:
        >>> import numpy as np, rnntk
        >>> t = np.array([1.0, 2.0])
        >>> rnntk.plot.losses(t[None], np.exp(-t)[None], t, np.exp(-t)).axes[0].get_ylabel()
        'training loss'
    """
    figure, ax = axes_of(ax)
    for i, (at, row) in enumerate(zip(times, positive(trained), strict=True)):
        label = f"network of each seed ({len(trained)})" if i == 0 else None
        ax.plot(at, row, "-", lw=0.7, color="0.55", label=label)
    label = "kernel, gradient flow"
    ax.plot(predicted_times, positive(predicted), "--", lw=2, color=COLORS[0], label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(r"training time $\eta\,k$ (learning rate times steps)")
    ax.set_ylabel("training loss")
    ax.legend(fontsize=8)
    return figure


def predictions(
    kernel: Float[np.ndarray, " k"],
    network: Float[np.ndarray, " k"],
    *,
    ax: Axes | None = None,
) -> Figure:
    """Each prediction of trained networks against the kernel's, with the diagonal.

    Args:
        kernel: predictions of the kernel, flattened.
        network: predictions of the networks for the same inputs and outputs.
        ax: axes to draw on.

    Example:
        >>> import numpy as np, rnntk
        >>> rnntk.plot.predictions(np.zeros(3), np.ones(3)).axes[0].get_xlabel()
        'prediction of the kernel'
    """
    figure, ax = axes_of(ax)
    low = float(min(np.min(kernel), np.min(network)))
    high = float(max(np.max(kernel), np.max(network)))
    margin = 0.04 * (high - low) or 1.0
    ends = [low - margin, high + margin]
    look = {"ms": 2, "alpha": 0.4} if np.size(kernel) > 200 else {"ms": 7}  # seen, and not a blot
    ax.plot(np.ravel(kernel), np.ravel(network), ".", color=COLORS[0], rasterized=True, **look)
    ax.plot(ends, ends, "-", color="0.1", lw=1, label="equal")
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.set_aspect("equal")
    ax.set_xlabel("prediction of the kernel")
    ax.set_ylabel("prediction of the networks, mean")
    ax.legend(fontsize=8, loc="upper left")
    return figure
