"""What the tests of stores watch."""

import pytest

import rnntk


@pytest.fixture
def count(monkeypatch):
    """How many tiles were computed."""
    calls = []
    original = rnntk.storage.writing.Task.__call__

    def counted(task, index):
        calls.append(index)
        return original(task, index)

    monkeypatch.setattr(rnntk.storage.writing.Task, "__call__", counted)
    return calls
