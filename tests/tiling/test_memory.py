"""How much memory is free: what files fill can be had, and systems that do not tell."""

import os
from pathlib import Path

from rnntk.tiling.memory import free_memory

LINUX = "MemTotal:       24684096 kB\nMemFree:             100 kB\nMemAvailable:       2000 kB\n"


def test_what_the_system_keeps_of_files_is_free(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: {"/proc/meminfo": LINUX}[str(path)])
    assert free_memory() == 2000 * 1024


def test_half_of_all_where_nothing_tells(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.get)
    assert free_memory() == 5 * 4096
