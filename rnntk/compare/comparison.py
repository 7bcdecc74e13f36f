"""A comparison as a table, the slopes of its columns against width, and its file."""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rnntk.files import save_arrays

SAMPLES = 2000
"""Of the bootstrap."""
LEVEL = 0.95
"""Of its intervals."""


@dataclass(frozen=True)
class Slope:
    """Exponent of a power law in the width, with its interval.

    Attributes:
        value: least-squares slope of log of the geometric mean over seeds, on log width.
        lower: end of the interval of 95%, by bootstrap over the seeds of each width.
        upper: the other end.
    """

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """What networks of several widths did, beside their kernels; made by :func:`with_kernel`.

    Attributes:
        table: columns of one length, a row for each width, seed and recorded step, as
            ``pandas.DataFrame`` takes them:

            - ``width``, ``seed``, ``step``, ``time`` (learning rate times step), ``diverged`` (1
              where the network is no longer finite; what is measured of it is NaN);
            - ``gap_infinite``, ``gap_empirical``, ``gap_linearized``: root mean square distance of
              the network's outputs, on the test sequences or, without any, the training ones, to
              gradient flow with the infinite-width kernel and with the network's own kernel at
              initialization, and to the linearized network trained by the same steps; in units of
              the root mean square of the labels;
            - ``loss``, ``loss_infinite``, ``loss_empirical``, ``loss_linearized``: mean of half
              the squared error on the training sequences, of each of the four;
            - ``error``, ``error_infinite`` ...: root mean square error on the test sequences, in
              units of the root mean square of their labels;
            - ``misclassified``, ``misclassified_infinite`` ...: share of the test sequences whose
              largest output is not that of the labels, with several outputs;
            - ``kernel_drift``: relative Frobenius distance of the empirical kernel to that at
              initialization; ``alignment``: cosine between it and y y';
            - ``movement_W`` ...: relative distance of each trained group to its start;
            - ``flipped``: share of the pre-activations, over units, steps and sequences, that
              changed sign.

        settings: how it was made.
    """

    table: dict[str, np.ndarray]
    settings: dict[str, Any]

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths, ascending."""
        return tuple(int(width) for width in np.unique(self.table["width"]))

    @property
    def steps(self) -> tuple[int, ...]:
        """The recorded steps, ascending."""
        return tuple(int(step) for step in np.unique(self.table["step"]))

    def column(self, name: str, *, step: int | None = None) -> Float[np.ndarray, "widths seeds"]:
        """One column at one step.

        Args:
            name: of the column.
            step: a recorded step; the last by default.

        Raises:
            ValueError: for a name or step that there is not.
        """
        if name not in self.table:
            raise ValueError(f"name must be one of {tuple(self.table)}, got {name!r}.")
        step = self.steps[-1] if step is None else step
        if step not in self.steps:
            raise ValueError(f"step must be one of those recorded, {self.steps}, got {step}.")
        rows = self.table["step"] == step
        values = self.table[name][rows]
        order = np.lexsort((self.table["seed"][rows], self.table["width"][rows]))
        return values[order].reshape(len(self.widths), -1).astype(float)

    def slope(self, name: str, *, step: int | None = None) -> Slope:
        """How a column falls or grows with the width.

        Logarithms are averaged, as what is compared is heavy-tailed over networks. Networks that
        diverged are left out.

        Args:
            name: of the column.
            step: a recorded step; the last by default.

        Raises:
            ValueError: for a name or step that there is not, one width, values that are not
                positive, or a width of which no network is left.

        Example:
            >>> import numpy as np
            >>> widths = np.repeat([16, 64, 256], 2)
            >>> table = {"width": widths, "seed": np.tile([0, 1], 3), "step": np.ones(6, int),
            ...          "gap": 3 / np.sqrt(widths)}
            >>> round(Comparison(table, {}).slope("gap").value, 12)
            -0.5
        """
        values = self.column(name, step=step)
        if len(values) < 2:
            raise ValueError(f"slope needs at least two widths, got {self.widths}.")
        kept = [row[~np.isnan(row)] for row in values]
        if any(row.size == 0 or (row <= 0).any() for row in kept):
            raise ValueError(
                f"{name} must be positive, with a finite value at every width, to have a slope; "
                f"got {values.tolist()}."
            )
        at = np.log(self.widths) - np.mean(np.log(self.widths))
        weights = at / np.square(at).sum()
        rng = np.random.default_rng(0)
        logs = [np.log(row) for row in kept]
        means = np.array([row.mean() for row in logs])
        drawn = np.stack(
            [row[rng.integers(row.size, size=(SAMPLES, row.size))].mean(axis=1) for row in logs]
        )
        tail = (1 - LEVEL) / 2
        lower, upper = np.quantile(weights @ drawn, [tail, 1 - tail])
        return Slope(float(weights @ means), float(lower), float(upper))

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, in one step; :func:`load` reads it.

        Args:
            path: of the file.
        """
        columns = {f"column {name}": values for name, values in self.table.items()}
        save_arrays(Path(path), {"settings": np.array(json.dumps(self.settings)), **columns})


def load(path: str | Path) -> Comparison:
    """Read what :meth:`Comparison.save` wrote.

    Args:
        path: of the file.

    Raises:
        TypeError: for what is no path.
        FileNotFoundError: if there is no file.
        ValueError: if it is of another kind.
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"path must be a path, got {path!r}.")
    try:
        with np.load(path) as file:
            settings = json.loads(str(file["settings"]))
            table = {
                name.removeprefix("column "): file[name]
                for name in file.files
                if name.startswith("column ")
            }
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"path must be a file of Comparison.save, got {path}.") from error
    return Comparison(table, settings)
