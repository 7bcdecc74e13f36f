"""Scripts in a process of their own, as a reader runs them."""

import os
import subprocess
import sys
from pathlib import Path

# Two processes may meet in the compilation cache; the one that reads compiles instead.
MEETING = [
    f"ignore:Error {act} persistent compilation cache entry" for act in ("reading", "writing")
]


def assert_runs(script: Path, folder: Path, warnings: str) -> None:
    """It ends well in an empty folder, where it reads nothing that its reader would not have."""
    result = subprocess.run(
        [sys.executable, *(f"-W{rule}" for rule in (warnings, *MEETING)), script],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
