"""Sizes at which programs are cut, and what compilers are told: all that was tuned by measuring.

Unless said otherwise, measured on two shared x86-64 cores with AVX-512 by the scripts in
``benchmarks`` (JAX 0.10.2). What concerns accelerators is sized by reasoning, and says so.
"""

import os


def _cores() -> int:
    """Cores that this process may use: fewer than the machine has under SLURM or in containers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


CORES = _cores()

# -- infinite width: elementwise passes over pairs of sequences -----------------------------------

INFINITE_TILE = 208
"""Sequences a side of a tile: its few work arrays stay in a core's cache. 128 to 320 are within
a tenth; 512 takes a third longer (benchmarks/infinite.py)."""

INFINITE_TILE_ACCELERATOR = 2048
"""By reasoning: a step of one tile has to keep every core of an accelerator busy."""

LANES = 8
"""Numbers in a vector register, or half of one in float32; what is left of a row is done one by
one. With 16, tiles would be less even: of 1,000 sequences a twelfth of the pairs are done twice."""

TOKEN_CHUNK = 8
"""Token entries whose squared differences XLA adds up in one pass over the pairs."""


BUCKETED = 2**14
"""Pairs of sequences times cells, a tenth of a millisecond of work, up to which lengths are rounded
up to a power of two: each new length would cost a compilation, a second."""


SMALL_PRODUCTS = 128, 32
"""Width and batch up to which XLA's own products are faster than those of the library (YNNPACK)
that it prefers: steps of training at width 64 by a sixth with batch 1 and by a twentieth with batch
32, at width 128 by a thirtieth. At 256 and 32 they take half as long again."""


def one_core_options(
    platform: str | None, small: bool = False
) -> dict[str, str | int | bool] | None:
    """Compiler options of programs of which every core runs one; ``small`` if products are.

    XLA defaults to half of the width of AVX-512 registers, and to splitting every pass among all
    cores, though they are busy: together a fifth and a half more time of a tile. Its products
    would share their rows out as well, a twentieth of a step of training at width 64.
    """
    without = ["cpu-parallel-task-assigner", *(["dot-library-rewriter"] if small else [])]
    on_cpu: dict[str, str | int | bool] = {
        "xla_cpu_prefer_vector_width": 512,
        "xla_disable_hlo_passes": ",".join(without),
        "xla_cpu_multi_thread_eigen": False,
    }
    return on_cpu if platform == "cpu" else None


# -- kernels on disk ------------------------------------------------------------------------------

STORED_TILE = 10 * INFINITE_TILE
"""Sequences a side of a chunk at the most, 17 MB in float32: a chunk of 208 took 6 ms beside its 2
of computing (benchmarks/scale.py, on a busy machine), and this one holds a hundred of them."""

# -- finite width: matrix products ----------------------------------------------------------------

ALIGNED = 16
"""Columns: on a CPU, products of so many times a whole number are a seventh faster."""

PANEL = 512
"""Sequences that are backpropagated together; more gain no speed, and hide the progress."""

BRIEF = 2e9
"""Operations of a kernel, some milliseconds, below which threads cost more than they gain."""

HALVED = 256
"""Rows from which on the upper half of a product takes less time than all of it."""

UNROLLED = 64
"""Products of tiles in one program; in a loop each tile would be cut out again and again."""

GRAM_ROWS = 320, 640
"""Rows of a Gram matrix a side of a tile, two of which stay in a core's cache: few where that
leaves no more than UNROLLED tiles, else many."""

GRAM_ROWS_ACCELERATOR = (4096,)
"""By reasoning, as above."""

JACOBIAN_ROWS_ACCELERATOR = 64
"""Rows of the gradients formed at a time, by reasoning."""

JACOBIAN_ROWS = 16
"""Rows on a CPU, at the least: XLA multiplies larger batches of small matrices on both cores with
little gain, and takes the core of the second thread."""

CELL_TILE = 16
"""The same for cells, and sequences a side of a tile; not measured at other values."""

# Time of an operation over that of one in a large matrix product: chosen so that plans agree with
# the crossovers measured in docs/theory/empirical.md (29 sizes).
FORM = 2.5  # forming gradients, one small product for each sequence
MULTIPLY = 1.25  # multiplying them, products with few rows and long columns
BACKPROPAGATE = 1.5
SMALLEST = 16  # sequences that one core backpropagates; fewer take hardly less time
WORTH = 24e6  # multiplications in a chunk of gradients, below which starting it takes as long
ENTRY = 80  # operations that an entry of a Gram matrix costs beside the product

# -- training: many steps of a network in one call ------------------------------------------------

CHUNK_OPERATIONS = 2e10
"""Of one network in one call, some tenths of a second: between calls the progress shows, a diverged
network stops, and an interrupt is heard."""

CHUNK_BYTES = 2**25
"""Of the batches, and of a stream's hidden states, in one call."""

MOST_STEPS = 4096
"""In one call; more gain nothing even for the smallest networks."""

STREAM_BLOCK = 32
"""Batches of a stream whose initial outputs are computed at once. A fixed number, as the number of
rows in a product may change its rounding."""

UNROLLED_STEPS = 16
"""Steps of sequences that are unrolled: a sixth faster at width 64, and compiled in a second."""

PRODUCT_ROWS = 256
"""Rows (sequences times steps) of a product that makes a gradient; 2,000 in one product take a
sixth more time of a step at width 64, and the same at 256."""

PRODUCTS = 16
"""Into which the gradient of a matrix is cut at the most."""

PRODUCT_BYTES = 2**20
"""Of a gradient, beyond which it is one product: adding up matrices that leave a core's cache takes
a fifth of a step at width 1024 and batch 200."""
