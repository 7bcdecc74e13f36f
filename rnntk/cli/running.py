"""Running a command: exit codes, and one line for whatever goes wrong."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import jax

from rnntk.cli.options import parser

FAILED = 1  # some stages of a report, or a certificate that does not verify
BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, in float64, and return its exit code.

    Args:
        arguments: as typed after ``rnntk``; by default those of the process.

    Returns:
        0; 1 if stages of a report failed, with the others written, or a certificate does not
        verify; 2 for wrong arguments or data, after one line on stderr that says what is wrong; 130
        after Ctrl-C, with the files of the stages that were finished, if any.

    Example:
        >>> import rnntk.cli
        >>> rnntk.cli.main(["report", "--help"])  # doctest: +SKIP
    """
    try:
        options = parser().parse_args(arguments)
        jax.config.update("jax_enable_x64", True)
        return int(options.run(options))
    except KeyboardInterrupt as interruption:
        state = str(interruption) or "nothing was written"
        print(f"rnntk: interrupted; {state}.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError) as error:
        print(f"rnntk: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        # JAX has no class of its own for this; other errors of its runtime are defects.
        said = any(words in str(error) for words in ("Out of memory", "RESOURCE_EXHAUSTED"))
        if not said and not isinstance(error, MemoryError):
            raise
        print("rnntk: out of memory; use a smaller --n.", file=sys.stderr)
        return BAD_INPUT


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
