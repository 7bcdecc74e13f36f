"""Numbers of samples as a table, their intervals over draws and their growth with the length."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rnntk import checkpoint
from rnntk.compare.laws import Growth, growth

SAMPLES = 2000
"""Of the bootstrap."""
AT = ("length", "draw")
Rows = dict[tuple[int, int], dict[str, float]]


@dataclass(frozen=True, eq=False)
class SampleComplexity:
    """Samples to reach an error, for each length; made by :func:`sample_complexity`.

    Attributes:
        table: columns of one length, a row for each length and draw, as ``pandas.DataFrame`` takes
            them: ``length``, ``draw``, and numbers of samples by learner or prediction, which
            :func:`sample_complexity` explains. Infinity: not reached. NaN: not asked for.
        settings: how it was made.
    """

    table: dict[str, np.ndarray]
    settings: dict[str, Any]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths, ascending."""
        return tuple(int(length) for length in np.unique(self.table["length"]))

    def column(self, name: str) -> Float[np.ndarray, "lengths draws"]:
        """One column.

        Args:
            name: of the column.

        Raises:
            ValueError: for a name that there is not.
        """
        if name not in self.table:
            raise ValueError(f"name must be one of {tuple(self.table)}, got {name!r}.")
        return self.table[name].reshape(len(self.lengths), -1).astype(float)

    def interval(self, name: str) -> Float[np.ndarray, "lengths 3"]:
        """Geometric mean over draws, and the ends of its interval of 95%.

        By bootstrap over draws. Where a draw did not reach the error, the mean and the upper end
        are infinite, and the lower end is that of the others.

        Args:
            name: of the column.

        Raises:
            ValueError: for a name that there is not.

        Example:
            >>> import numpy as np
            >>> table = {"length": np.array([1, 1]), "draw": np.array([0, 1]),
            ...          "kernel": np.array([2.0, 8.0])}
            >>> SampleComplexity(table, {}).interval("kernel").round(1).tolist()
            [[4.0, 2.0, 8.0]]
        """
        rows = []
        rng = np.random.default_rng(0)
        for values in self.column(name):
            finite = np.log(values[np.isfinite(values)])
            if finite.size == 0:
                rows.append([np.inf if np.isinf(values).any() else np.nan] * 3)
                continue
            drawn = finite[rng.integers(finite.size, size=(SAMPLES, finite.size))].mean(axis=1)
            low, high = np.exp(np.quantile(drawn, [0.025, 0.975]))
            whole = finite.size == len(values)
            mean = float(np.exp(finite.mean())) if whole else np.inf
            rows.append([mean, float(low), float(high) if whole else np.inf])
        return np.array(rows)

    def growth(self, name: str) -> Growth:
        """Laws of growth of the geometric means, over the lengths at which all draws are finite.

        Args:
            name: of the column.

        Raises:
            ValueError: for a name that there is not, or fewer than four such lengths.
        """
        means = self.interval(name)[:, 0]
        kept = np.isfinite(means)
        if kept.sum() < 4:
            raise ValueError(
                f"{name} must be reached by all draws at four lengths or more to have a law of "
                f"growth, got {int(kept.sum())}."
            )
        return growth(np.array(self.lengths, float)[kept], means[kept])


def load_rows(path: str | Path | None, problem: Mapping[str, Any]) -> Rows:
    """What an interrupted call has written."""
    stored = None if path is None else checkpoint.load(Path(path), problem)
    if stored is None:
        return {}
    found = {}
    for i, at in enumerate(zip(stored["length"].tolist(), stored["draw"].tolist(), strict=True)):
        found[at] = {name: float(values[i]) for name, values in stored.items() if name not in AT}
    return found


def save_rows(path: str | Path | None, problem: Mapping[str, Any], rows: Rows) -> None:
    """Write all rows in one step."""
    if path is None:
        return
    lengths, draws = np.array(list(rows)).T
    columns = {
        name: np.array([row[name] for row in rows.values()]) for name in next(iter(rows.values()))
    }
    checkpoint.save(Path(path), problem, {"length": lengths, "draw": draws, **columns})
