"""What a report is asked for, on the command line or in a TOML file."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rnntk import checks
from rnntk.datasets.dataset import TASKS, Task
from rnntk.network.elman import GROUPS, ElmanRNN

READOUTS = ("last", "mean")  # an output at every step would need a label at every step
NUMBER = int | float | np.number
DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class Settings:
    """What a report is made of; the fields are the options of ``rnntk report``.

    Args:
        data: ``"digits"``, or the paths that :func:`rnntk.datasets.load` takes.
        test: paths of test data; by default a part of ``data``.
        test_fraction: of ``data``, where ``test`` and ``n`` do not say it.
        task: "classification" or "regression", where the labels do not say it.
        n: number of training sequences; by default 200, or four fifths of the data if it holds
            fewer than 250 sequences; with ``test`` all of them.
        widths: widths of the finite networks; sorted, each once.
        seeds: number of networks of each width.
        seed: where all random numbers start: the split and the networks.
        activation: name of the activation.
        w_std: multiplier of the recurrent weights.
        u_std: multiplier of the input weights.
        b_std: multiplier of the biases.
        v_std: multiplier of the readout.
        readout: "last" or "mean".
        depth: number of layers.
        bidirectional: whether a second network reads backwards.
        trainable: groups of parameters that are trained.
        width_train: width of the networks that are trained; by default the largest of ``widths``
            up to 256.
        steps: updates of the training.
        learning_rate: of the training; by default for each network an eighth of n over the largest
            eigenvalue of its own kernel, a sixteenth of what is stable.
        ridge: of the regressions, relative to the mean of each kernel's diagonal; by default chosen
            by leave-one-out.
        dtype: of the kernels.
        certify: enclose the smallest eigenvalue of the exact kernel, which takes python-flint.
        title: of the page.
        out: folder of the files.
        quiet: show no progress, and print no summary.

    Raises:
        ValueError: for a field that is out of range, naming it.
        TypeError: for a field of the wrong type, likewise.
    """

    data: Sequence[str] = ("digits",)
    test: Sequence[str] = ()
    test_fraction: float | None = None
    task: Task | None = None
    n: int | None = None
    widths: Sequence[int] = (64, 256, 1024)
    seeds: int = 8
    seed: int = 0
    activation: str = "relu"
    w_std: float = 2**0.5
    u_std: float = 2**0.5
    b_std: float = 0.0
    v_std: float = 1.0
    readout: Literal["last", "mean"] = "last"
    depth: int = 1
    bidirectional: bool = False
    trainable: Sequence[str] = GROUPS
    width_train: int | None = None
    steps: int = 600
    learning_rate: float | None = None
    ridge: float | None = None
    dtype: str = "float64"
    certify: bool = False
    title: str | None = None
    out: str = "report"
    quiet: bool = False

    def __post_init__(self) -> None:
        for name in ("data", "test", "widths", "trainable"):
            self._set(name, _listed(name, getattr(self, name)))
        for name in ("data", "test"):
            self._set(
                name, tuple(str(_typed(name, one, str | Path)) for one in getattr(self, name))
            )
        for name in ("bidirectional", "certify", "quiet"):
            _typed(name, getattr(self, name), bool)
        self._set("out", str(_typed("out", self.out, str | Path)))
        _typed("title", self.title, str | None)
        if not self.widths:
            raise ValueError("widths must hold at least one width, got none.")
        widths = {checks.check_size("widths", width) for width in self.widths}
        self._set("widths", tuple(sorted(widths)))
        for name, least in (("seeds", 1), ("steps", 1), ("seed", 0), ("n", 1), ("width_train", 1)):
            if getattr(self, name) is not None:
                self._set(name, checks.check_size(name, getattr(self, name), least))
        for name, valid in (("task", (None, *TASKS)), ("readout", READOUTS), ("dtype", DTYPES)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {valid}, got {getattr(self, name)!r}.")
        for name, top in (("test_fraction", 1.0), ("learning_rate", np.inf), ("ridge", np.inf)):
            value = getattr(self, name)
            if value is None:
                continue
            if not 0 < _typed(name, value, NUMBER) < top:
                below = f"and below {top:g}" if top < np.inf else "and finite"
                raise ValueError(f"{name} must be positive {below}, got {value}.")
            self._set(name, float(value))
        if self.test and self.test_fraction is not None:
            raise ValueError("test and test_fraction exclude each other, got both.")
        self.network()
        for name in ("w_std", "u_std", "b_std", "v_std"):
            self._set(name, float(getattr(self, name)))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def network(self) -> ElmanRNN:
        """The architecture that is asked for."""
        return ElmanRNN(
            activation=self.activation,
            w_std=self.w_std,
            u_std=self.u_std,
            b_std=self.b_std,
            v_std=self.v_std,
            readout=self.readout,
            depth=self.depth,
            bidirectional=self.bidirectional,
            trainable=tuple(self.trainable),
        )


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str | Path):
        return (value,)
    if not isinstance(value, Sequence | np.ndarray):
        raise TypeError(f"{name} must be a list, got {value!r}.")
    return tuple(value)


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value, unless it is of another kind; True is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {bool: "true or false", NUMBER: "a number"}.get(kind, "text")
        raise TypeError(f"{name} must be {wanted}, got {value!r}.")
    return value


def read(path: str | Path) -> dict[str, Any]:
    """The fields that a TOML file sets, under the names of the command line's options or theirs.

    Raises:
        ValueError: for a file that is not TOML, or a name that is no option.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file ({error}).") from None
    known = {field.name for field in fields(Settings)}
    values = {name.replace("-", "_"): value for name, value in found.items()}
    if len(values) < len(found):
        twice = next(name for name in found if name.replace("-", "_") != name)
        raise ValueError(f"{path}: {twice} is given twice, with a dash and with an underscore.")
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"{path}: {unknown[0]} is no option of the report; expected some of "
            f"{', '.join(sorted(known))}."
        )
    return values


def written(settings: Settings) -> str:
    """A TOML file that repeats a report; options that are not set are left out."""
    lines = ["# rnntk report --config config.toml"]
    for name, value in asdict(settings).items():
        if value is not None and value != ():
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def changed(settings: Settings) -> Mapping[str, Any]:
    """The fields that are not at their defaults."""
    default = asdict(Settings())
    return {name: value for name, value in asdict(settings).items() if value != default[name]}
