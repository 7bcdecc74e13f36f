"""``python -m rnntk`` is the ``rnntk`` command."""

from rnntk.cli import command

if __name__ == "__main__":
    command()
