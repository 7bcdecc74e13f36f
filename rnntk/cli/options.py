"""The commands and their options."""

import argparse
import textwrap
from collections.abc import Callable
from typing import NoReturn

import rnntk
from rnntk.activations import NAMES
from rnntk.cli import commands
from rnntk.datasets.dataset import TASKS
from rnntk.network.elman import GROUPS
from rnntk.network.readouts import READOUTS
from rnntk.report.settings import DTYPES, Settings
from rnntk.report.settings import READOUTS as REPORTED

DATA = (
    "digits (scikit-learn's, each image a sequence of 8 rows; the default); one .npz file with x "
    "(sequences, steps, token size), y (sequences) and optionally integers lengths; two .npy "
    "files, x and y; .csv files with the columns sequence, step, x1 ... xd, y and a row for each "
    "step; or .ts files. step orders the rows of a sequence, and y is the same on all of them. "
    "Labels y that are whole numbers or text are classes, other numbers are values."
)
CSV_EXAMPLE = """\
example of a .csv file, a sequence of two steps with tokens of size 2 and label 7:
  sequence,step,x1,x2,y
  first,1,0.5,-1.0,7
  first,2,0.25,3.0,7"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """All commands; options that are not given are absent, so that a file may give them."""
    top = _Parser(prog="rnntk", description=rnntk.__doc__)
    top.add_argument("--version", action="version", version=f"rnntk {rnntk.__version__}")
    found = top.add_subparsers(dest="command", required=True, parser_class=_Parser)

    def add(name: str, run: Callable[..., int], text: str, more: str = "") -> _Parser:
        one = found.add_parser(
            name,
            help=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            description=textwrap.fill(f"{text[0].upper()}{text[1:]}. {more}", width=80),
            epilog=CSV_EXAMPLE if more else None,
            argument_default=argparse.SUPPRESS,
        )
        one.set_defaults(run=run)
        return one

    report = add(
        "report",
        commands.report,
        "kernels, spectrum, predictions and trained networks of a data set, as a web page",
        f"Writes report.html, results.json, kernels.npz and config.toml. Data: {DATA}",
    )
    _add_report(report)
    for name, run, text in (
        ("kernel", commands.kernel, "the infinite-width NTK and NNGP kernel of a data set"),
        ("spectrum", commands.spectrum, "eigenvalues of the infinite-width NTK of a data set"),
        ("certify", commands.certify, "a proved enclosure of the smallest eigenvalue of the NTK"),
    ):
        one = add(name, run, text, f"Data: {DATA}")
        _add_data(one)
        _add_network(one, tuple(READOUTS))
        _add_json(one)
        if name != "certify":  # which is of the exact kernel
            _add_dtype(one)
        if name == "spectrum":
            one.add_argument("--ridge", type=_positive, help="for the effective dimension")
        else:
            file = "kernels.npz" if name == "kernel" else "certificate.npz"
            more = "; FOLDER.zarr, or a URL, stores tile by tile" if name == "kernel" else ""
            one.add_argument("--out", default=file, help=f"file to write (default: {file}){more}")
        if name == "kernel":
            _add_store(one)
    status = add("status", commands.status, "how far a stored kernel has come")
    status.add_argument("path", help="folder that kernel writes, or infinite_kernel(out=...)")
    _add_json(status)
    verify = add("verify", commands.verify, "prove a certificate anew, by code of its own")
    verify.add_argument("file", help="what certify has written")
    _add_json(verify)
    return top


def _add_data(one: argparse.ArgumentParser) -> None:
    one.add_argument("--data", nargs="+", metavar="DATA", help="digits (default), or files")
    one.add_argument("--task", choices=TASKS, help="where the labels do not say it")
    one.add_argument("--n", type=_count, help="sequences to draw (default: all)")
    one.add_argument("--seed", type=_whole, help="of all random numbers (default: 0)")


def _add_network(one: argparse.ArgumentParser, readouts: tuple[str, ...]) -> None:
    default = Settings()
    named = ", ".join(NAMES)
    one.add_argument("--activation", help=f"{named} (default: {default.activation})")
    for name in ("w_std", "u_std", "b_std", "v_std"):
        text = f"multiplier of {name[0].upper() if name[0] != 'b' else 'the biases'}"
        flag = f"--{name.replace('_', '-')}"
        one.add_argument(flag, type=float, help=f"{text} (default: {getattr(default, name):.6g})")
    one.add_argument("--readout", choices=readouts, help=f"(default: {default.readout})")
    one.add_argument("--depth", type=_count, help="number of layers (default: 1)")
    one.add_argument("--bidirectional", action="store_true", help="read in both directions")
    one.add_argument(
        "--trainable",
        type=_words,
        help=f"groups that are trained, separated by commas (default: {','.join(GROUPS)})",
    )


def _add_dtype(one: argparse.ArgumentParser) -> None:
    one.add_argument("--dtype", choices=DTYPES, help=f"of the kernels (default: {Settings.dtype})")


def _add_store(one: argparse.ArgumentParser) -> None:
    one.add_argument("--tile", type=_count, help="of a store: sequences a side of a tile")
    one.add_argument("--dask", metavar="ADDRESS", help="of a store: scheduler of a Dask cluster")
    one.add_argument("--resume", action="store_true", help="of a store: go on with one")


def _add_json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", default=False, help="print JSON")


def _add_report(one: argparse.ArgumentParser) -> None:
    default = Settings()
    one.add_argument("--config", help="TOML file with these options, which those given here change")
    one.add_argument("--data", nargs="+", metavar="DATA", help="digits (default), or files")
    one.add_argument("--test", nargs="+", metavar="DATA", help="test data (default: a part)")
    one.add_argument("--test-fraction", type=_positive, help="of the data that is for testing")
    one.add_argument("--task", choices=TASKS, help="where the labels do not say it")
    one.add_argument(
        "--n",
        type=_count,
        help="training sequences (default: 200, or four fifths of fewer than 250)",
    )
    one.add_argument(
        "--widths",
        type=_counts,
        help="widths of the finite networks, separated by commas (default: "
        f"{','.join(map(str, default.widths))})",
    )
    one.add_argument(
        "--seeds", type=_count, help=f"networks of each width (default: {default.seeds})"
    )
    one.add_argument("--seed", type=_whole, help="of the split and the networks (default: 0)")
    _add_network(one, REPORTED)
    _add_dtype(one)
    one.add_argument(
        "--width-train",
        type=_count,
        help="width of the networks that are trained (default: the largest up to 256)",
    )
    one.add_argument("--steps", type=_count, help=f"updates (default: {default.steps})")
    one.add_argument(
        "--learning-rate",
        type=_positive,
        help="of the training (default: for each network by its own kernel)",
    )
    one.add_argument(
        "--ridge",
        type=_positive,
        help="of the regressions, over the mean of the kernel's diagonal (default: leave-one-out)",
    )
    one.add_argument("--certify", action="store_true", help="prove the smallest eigenvalue too")
    one.add_argument("--title", help="of the page")
    one.add_argument("--out", help=f"folder of the files (default: {default.out})")
    one.add_argument("--quiet", action="store_true", help="no progress and no summary")


def _count(text: str, least: int = 1) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of at least {least}, got {text!r}"
        )
    return value


def _whole(text: str) -> int:
    return _count(text, 0)


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(_count(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers of at least 1 separated by commas, got {text!r}"
        ) from None


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return value
