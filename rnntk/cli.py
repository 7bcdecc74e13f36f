"""The command line: ``rnntk report``."""

import argparse
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax

import rnntk
from rnntk import report
from rnntk.report import Settings

BAD_INPUT = 2
INTERRUPTED = 130
CSV_EXAMPLE = """\
example of a .csv file, a sequence of two steps with tokens of size 2 and label 7:
  sequence,step,x1,x2,y
  first,1,0.5,-1.0,7
  first,2,0.25,3.0,7"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, in float64, and return its exit code.

    Args:
        arguments: as typed after ``rnntk``; by default those of the process.

    Returns:
        0; 2 for wrong arguments or data, after one line on stderr that says what is wrong; 130
        after Ctrl-C, with the files of the stages that were finished, if any.

    Example:
        >>> import rnntk.cli
        >>> rnntk.cli.main(["report", "--help"])  # doctest: +SKIP
    """
    try:
        options = _parser().parse_args(arguments)
        settings = Settings(
            data=tuple(options.data),
            n=options.n,
            widths=options.widths,
            seeds=options.seeds,
            out=options.out,
        )
        jax.config.update("jax_enable_x64", True)
        results = report.run(settings)
    except KeyboardInterrupt as interruption:
        state = str(interruption) or "nothing was written"
        print(f"rnntk: interrupted; {state}.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"rnntk: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        # JAX has no class of its own for this; other errors of its runtime are defects.
        said = any(words in str(error) for words in ("Out of memory", "RESOURCE_EXHAUSTED"))
        if not said and not isinstance(error, MemoryError):
            raise
        print("rnntk: out of memory; use a smaller --n or --widths.", file=sys.stderr)
        return BAD_INPUT
    print(summary(results))
    return 0


def command() -> NoReturn:
    """Run :func:`main` as the whole process, and exit with its code.

    An interrupted process ends at once: a Ctrl-C that falls into a compilation of JAX (seen with
    0.10.2) leaves Python to crash on its way out, and turns 130 into a segmentation fault.
    """
    code = main()
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _parser() -> _Parser:
    parser = _Parser(prog="rnntk", description=rnntk.__doc__)
    parser.add_argument("--version", action="version", version=f"rnntk {rnntk.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    command = commands.add_parser(
        "report",
        help="kernels, spectrum, predictions and trained networks of a data set, as a web page",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.fill(
            "Computes the infinite-width and finite-width tangent kernels of an Elman network on "
            "a data set, their spectrum, their predictions and those of trained networks, and "
            "writes report.html, results.json and kernels.npz. "
            "Data: 'digits' (scikit-learn's, each image a sequence of 8 rows); one .npz file with "
            "x (sequences, steps, token size), y (sequences) and optionally integers lengths; or "
            ".csv files with the columns sequence, step, x1 ... xd, y and a row for each step; "
            "step orders the rows of a sequence, and y is the same on all of them. "
            "Labels y that are whole numbers or text are classes, floats are values.",
            width=80,
        ),
        epilog=CSV_EXAMPLE,
    )
    default = Settings()
    command.add_argument(
        "--data",
        nargs="+",
        default=list(default.data),
        metavar="DATA",
        help="digits (default), one .npz file, or .csv files",
    )
    command.add_argument(
        "--n",
        type=_count,
        help="training sequences (default: 200, or four fifths of fewer than 250)",
    )
    command.add_argument(
        "--widths",
        type=_counts,
        default=",".join(map(str, default.widths)),
        help="widths of the finite networks, separated by commas (default: %(default)s)",
    )
    command.add_argument(
        "--seeds",
        type=_count,
        default=default.seeds,
        help="networks of each width (default: %(default)s)",
    )
    command.add_argument(
        "--out", default=default.out, help="folder of the files (default: %(default)s)"
    )
    return parser


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(_count(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected whole numbers of at least 1 separated by commas, got {text!r}"
        ) from None


def summary(results: Mapping[str, Any]) -> str:
    """The main numbers of a finished report, in ASCII, which every terminal shows."""
    shape = results["kernels"]["ntk_unit_diagonal"]
    smallest = results["spectrum"]["min_eigenvalue"]
    predictions, training = results["predictions"], results["training"]
    metric, methods = predictions["metric"], predictions["methods"]
    form = ".3f" if metric == "test accuracy" else ".4g"  # an error has the unit of the labels
    lines = [
        "deviation of finite networks' NTK (unit diagonal) against width: "
        + (
            "one width defines no slope"
            if shape["slope"] is None
            else f"slope {_with_error(shape['slope'], shape['slope_standard_error'], '.2f')} "
            "(theory -0.5)"
        ),
        f"smallest eigenvalue of the NTK: {smallest['value']:.6g} in [{smallest['lower']:.12g}, "
        f"{smallest['upper']:.12g}]" + ("" if smallest["resolved"] else ", not resolved"),
        f"{metric}: " + ", ".join(f"{name} {row['score']:{form}}" for name, row in methods.items()),
        f"{metric} of trained networks of width {training['width']}: "
        + _with_error(training["network_score_mean"], training["network_score_sd"], form)
        + f", of the kernel at the same training time: {training['gradient_flow_score']:{form}}",
        f"written: {Path(results['settings']['out']) / 'report.html'}, results.json, kernels.npz",
    ]
    return "\n".join(lines)


def _with_error(value: float, error: float | None, form: str) -> str:
    return f"{value:{form}}" + ("" if error is None else f" +/- {error:{form}}")
