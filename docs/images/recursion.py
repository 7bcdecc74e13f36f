"""Draws recursion.png: how the kernel of two sequences goes through one step."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"


def box(ax: Axes, x: float, y: float, text: str, color: str) -> None:
    style = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": color, "lw": 1.6}
    ax.text(x, y, text, ha="center", va="center", fontsize=12, bbox=style)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": 1.2, "color": "0.25"})
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.13
        ax.text(*middle, text, ha="center", fontsize=10, color="0.25")


figure = Figure(figsize=(9.4, 4.2), layout="constrained")
ax = figure.subplots()
for s, x in enumerate((0.0, 3.4, 6.8)):
    label = f"{s + 1}" if s < 2 else "t"
    ax.text(x, -0.75, rf"$\langle x_{label},\, x'_{label} \rangle$", ha="center", fontsize=12)
    arrow(ax, (x, -0.5), (x, -0.02), "")
    ax.text(x + 0.12, -0.3, r"$u^2$", fontsize=10, color="0.25")
    box(ax, x, 0.3, rf"$L_{label}$", BLUE)
    arrow(ax, (x, 0.6), (x, 1.02))
    box(ax, x, 1.35, rf"$K_{label},\ \dot K_{label}$", GREEN)
    arrow(ax, (x, 1.68), (x, 2.12))
    box(ax, x, 2.45, rf"$T_{label}$", RED)
    if s < 2:
        arrow(ax, (x + 0.6, 1.2), (x + 3.05, 0.42), r"$w^2 K$")
        arrow(ax, (x + 0.45, 2.45), (x + 2.95, 2.45), r"$w^2\, \dot K\, T$")
box(ax, 9.2, 1.9, r"$v^2 (K_t + \dot K_t T_t)$", "black")
arrow(ax, (7.2, 2.42), (8.25, 2.1))
arrow(ax, (7.45, 1.42), (8.25, 1.75))
ax.text(9.2, 2.45, "NTK", ha="center", fontsize=12)
for y, text in (
    (-0.75, "tokens"),
    (0.3, "pre-activations"),
    (1.35, "states, slopes"),
    (2.45, "gradients"),
):
    ax.text(-1.0, y, text, ha="right", va="center", fontsize=11)
ax.text(5.1, 0.3, "...", ha="center", fontsize=14)
ax.set_xlim(-2.6, 10.5)
ax.set_ylim(-1.0, 2.9)
ax.axis("off")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
