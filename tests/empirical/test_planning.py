"""Plans against operations counted by hand, and what they promise of memory."""

import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnntk import ElmanRNN
from rnntk.empirical.planning import plan
from rnntk.network.multipliers import multipliers


def planned(n, t, m, o=1, n2=None, **options):
    rnn = ElmanRNN(readout=options.pop("readout", "last"))
    params = jax.eval_shape(
        lambda key: rnn.init(key, input_dim=8, width=m, output_dim=o), jax.random.key(0)
    )
    x1 = jnp.zeros((n, t, 8), jnp.float32)
    x2 = None if n2 is None else jnp.zeros((n2, t, 8), jnp.float32)
    return plan(rnn, params, x1, x2, **options)


# Crossovers measured with benchmarks/empirical.py, in the direction in which they are clear.
@pytest.mark.parametrize(
    "n, t, m, method",
    [
        (64, 16, 256, "gram"),
        (128, 16, 512, "gram"),
        (256, 10, 1024, "gram"),
        (512, 20, 2048, "gram"),
        (128, 64, 512, "jacobian"),
        (256, 100, 512, "jacobian"),
        (64, 200, 128, "jacobian"),
    ],
)
def test_choice(n, t, m, method):
    assert planned(n, t, m).method == method


def test_arrays_of_numpy_are_planned_alike():
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=8, width=16)
    x1, x2 = np.zeros((9, 4, 8), np.float32), np.zeros((5, 3, 8), np.float32)
    assert plan(rnn, params, x1, x2) == plan(rnn, params, jnp.asarray(x1), jnp.asarray(x2))


def test_choice_is_the_cheaper_one():
    for t in (2, 8, 20, 50):
        costs = {name: planned(100, t, 300, method=name).cost for name in ("gram", "jacobian")}
        assert planned(100, t, 300).method == min(costs, key=costs.get)


def test_costs_grow_as_the_operations_do():
    # 2 n1 n2 t1 t2 (c + k) against 2 n1 n2 c k, once these dominate
    large = {"n2": 2000, "m": 1024}
    gram = [planned(2000, t, method="gram", **large).cost for t in (40, 80)]
    assert gram[1] / gram[0] == pytest.approx(4, rel=0.1)
    jacobian = [planned(2000, 4, m, n2=2000, method="jacobian").cost for m in (2048, 4096)]
    assert jacobian[1] / jacobian[0] == pytest.approx(4, rel=0.1)
    # several outputs that are averaged cost as many signals, but no more reads
    one, three = (planned(2000, 40, 1024, o=o, n2=2000, method="gram").cost for o in (1, 3))
    assert three / one == pytest.approx(2, rel=0.1)


def test_sides_that_change_places_cost_the_same():
    rnn = ElmanRNN()
    params = rnn.init(jax.random.key(0), input_dim=8, width=256)
    x1, x2 = jnp.zeros((3, 60, 8)), jnp.zeros((129, 12, 8))
    one, two = (plan(rnn, params, *sides) for sides in ((x1, x2), (x2, x1)))
    assert one.cost == pytest.approx(two.cost)
    # two passes: 3 sequences take the time of 32, 129 that of 129, three products a step each
    passes = 1.5 * 2 * 256**2 * 3 * (32 * 60 + 129 * 12)
    # the states, the token and the bias are 265 columns, which zeros make 272
    products = 2 * 3 * 60 * 129 * 12 * (256 + 272 + 80)
    assert one.method == "gram"
    assert one.cost == pytest.approx(passes + products)


def test_memory_limit_bounds_the_plan():
    free = planned(2000, 20, 256)
    for limit in (free.memory // 2, free.memory // 8):
        tight = planned(2000, 20, 256, memory_limit=limit)
        assert tight.memory <= limit
        assert tight.cost >= free.cost
    with pytest.raises(
        ValueError, match=r"memory_limit must be at least [\d,]+ bytes .* got 1,000"
    ):
        planned(2000, 20, 256, memory_limit=1000)
    with pytest.raises(MemoryError, match="more than a quarter of the device's memory"):
        planned(2, 20, 10**7)


@pytest.mark.parametrize("method", ["gram", "jacobian"])
def test_limit_that_the_message_names_is_accepted_and_one_byte_less_is_not(method):
    rnn = ElmanRNN(readout="sequence", depth=2)
    params = rnn.init(jax.random.key(0), input_dim=2, width=23)
    x = jnp.zeros((40, 6, 2))
    with pytest.raises(ValueError, match="memory_limit must be at least") as said:
        plan(rnn, params, x, method=method, memory_limit=1)
    least = int(re.search(r"([\d,]+) bytes", str(said.value))[1].replace(",", ""))
    assert plan(rnn, params, x, method=method, memory_limit=least).memory == least
    with pytest.raises(ValueError, match="memory_limit must be at least"):
        plan(rnn, params, x, method=method, memory_limit=least - 1)


@pytest.mark.parametrize("method", ["gram", "jacobian"])
def test_one_sequence_more_than_a_panel_costs_little_more(method):
    full, more = (planned(n, 8, 256, method=method).cost for n in (512, 513))
    assert more < 1.2 * full  # three blocks of a fourth of the area each, and as many passes


@pytest.fixture
def benchmark(monkeypatch):
    """The script that compares the empirical kernel with its peers."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    yield importlib.import_module("empirical")
    for name in ("empirical", "harness"):
        sys.modules.pop(name)


def test_benchmark_keeps_rows_whose_peers_fail_or_differ(benchmark, monkeypatch, tmp_path, capsys):
    answers = {
        "rnntk": {"seconds": 2.0, "MB": 1.0, "check": [1.0, 10.0]},
        "nt1": {"seconds": 8.0, "MB": 1.0, "check": [1.0, 10.002]},
        "torch": {"error": "no torch here"},
    }
    monkeypatch.setattr(benchmark, "apart", lambda name, sizes: answers[name])
    monkeypatch.setattr(benchmark, "ceiling", lambda: 1.0)
    out = tmp_path / "results.json"
    options = ["--rows", "4,3,8;4,2,8,3", "--peers", "nt1,torch", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["empirical.py", *options])
    benchmark.main()
    first, second = json.loads(out.read_text(), parse_constant=pytest.fail)["rows"]
    assert (first["nt1 ratio"], first["torch s"], first["torch ratio"]) == (4.0, None, None)
    assert first["nt1 off"] == pytest.approx(2e-4)
    said = capsys.readouterr().err
    assert "nt1 at (4, 3, 8, 1): differs from rnntk by 0.0002" in said
    assert "torch at (4, 2, 8, 3): no torch here" in said
    # by hand: gram, 4^2 2^2 (3 8 + 8 + 9), and the passes, 2 4 2 8^2 (2 + 3)
    assert second["GFLOP/s"] * 2e9 == pytest.approx(64 * 41 + 1024 * 5)
    answers["rnntk"] = {"error": "out of memory"}
    with pytest.raises(RuntimeError, match=r"rnntk at \(4, 3, 8, 1\): out of memory"):
        benchmark.main()


@pytest.mark.parametrize("rows", ["64,16", "64,16,256;", "64,16,x", "1,2,3,4,5", "0,1,1"])
def test_benchmark_refuses_wrong_rows(benchmark, monkeypatch, capsys, rows):
    monkeypatch.setattr("sys.argv", ["empirical.py", "--rows", rows])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert "rows are n,t,m or n,t,m,outputs, got" in capsys.readouterr().err


@pytest.mark.parametrize("trainable", [("W", "U", "b", "V"), ("W",), ("V",)])
def test_copies_of_large_tokens_are_in_the_plan(trainable):
    from rnntk.empirical.backprop import Batch, Network, gradients

    rnn = ElmanRNN(trainable=trainable, bidirectional=True)
    params = rnn.init(jax.random.key(0), input_dim=300, width=8)
    x, lengths = jnp.zeros((20, 9, 300), jnp.float32), jnp.full(20, 8)
    network = Network(rnn, params, multipliers(rnn, 8, 300, x.dtype))
    lowered = gradients.lower(network, Batch(x, lengths, None), True, 0, len(x))
    found = lowered.compile().memory_analysis()
    needed = found.temp_size_in_bytes + found.output_size_in_bytes
    assert needed <= plan(rnn, params, x).memory


@pytest.mark.slow
@pytest.mark.parametrize("t", [12, 50])
@pytest.mark.parametrize("method", ["gram", "jacobian"])
def test_memory_of_the_parts_is_within_the_plan(method, t):
    """XLA's own figures for the temporary buffers of the compiled parts."""
    from rnntk.empirical.backprop import Batch, Network, gradients
    from rnntk.empirical.contraction import _rows, contract_gram
    from rnntk.tiling.tuning import CORES

    rnn, n, m = ElmanRNN(), 96, 128
    params = rnn.init(jax.random.key(0), input_dim=8, width=m)
    x = jnp.zeros((n, t, 8), jnp.float32)
    chosen = plan(rnn, params, x, method=method)
    batch = Batch(x, None, None)
    network = Network(rnn, params, multipliers(rnn, m, 8, x.dtype))

    def held(lowered):
        found = lowered.compile().memory_analysis()
        return found.temp_size_in_bytes + found.output_size_in_bytes

    pulled = held(gradients.lower(network, batch, average=True))
    factors = gradients(network, batch, average=True).layers
    stored = sum(v.nbytes for v in jax.tree.leaves(factors))
    parts = (factors,)
    if method == "gram":
        work = held(contract_gram.lower(parts, parts, tile=chosen.tile, mirror=True))
    else:
        firsts = np.arange(0, m, chosen.units)
        rows = _rows.lower(factors, factors, firsts, size=chosen.units, even=True, mirror=True)
        work = CORES * held(rows)
    assert max(pulled, stored + work) <= chosen.memory
