"""Calls in threads: order, errors, calls inside of calls."""

import jax
import pytest

from rnntk.tiling.threads import in_threads
from rnntk.tiling.tuning import CORES


def squares(n, depth=0):
    device = jax.devices()[0]
    if depth == 0:
        return list(in_threads(lambda i: i * i, range(n), device))
    return list(in_threads(lambda i: squares(i, depth - 1), range(n), device))


def test_results_come_in_order():
    assert squares(20) == [i * i for i in range(20)]


def test_calls_inside_of_calls_do_not_wait_for_each_other():
    n = 3 * CORES  # more than there are threads
    assert squares(n, depth=1) == [[i * i for i in range(k)] for k in range(n)]


def test_threads_outlive_an_error():
    def fail(i):
        raise ArithmeticError(f"call {i}")

    with pytest.raises(ArithmeticError, match="call 0"):
        list(in_threads(fail, range(100), jax.devices()[0]))
    assert squares(5) == [0, 1, 4, 9, 16]
