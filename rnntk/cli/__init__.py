"""The command line: ``rnntk report``, and small commands for kernels, spectra and certificates."""

from rnntk.cli.running import BAD_INPUT, FAILED, INTERRUPTED, command, main

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "command", "main"]
