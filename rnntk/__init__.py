"""Neural tangent kernels of recurrent networks: exact, finite and infinite width."""

__version__ = "0.1.0"

from rnntk import (
    activations,
    bounds,
    compare,
    datasets,
    empirical,
    interop,
    plot,
    predict,
    spectrum,
    train,
    verification,
)
from rnntk.empirical.cells import cell_kernel
from rnntk.empirical.ensemble import Ensemble, empirical_ensemble
from rnntk.empirical.kernel import empirical_kernel
from rnntk.empirical.operator import EmpiricalOperator, empirical_operator
from rnntk.infinite.kernel import infinite_kernel
from rnntk.kernel import Kernel
from rnntk.network.elman import ElmanRNN
from rnntk.sequences import pad

__all__ = [
    "ElmanRNN",
    "EmpiricalOperator",
    "Ensemble",
    "Kernel",
    "activations",
    "bounds",
    "cell_kernel",
    "compare",
    "datasets",
    "empirical",
    "empirical_ensemble",
    "empirical_kernel",
    "empirical_operator",
    "infinite_kernel",
    "interop",
    "pad",
    "plot",
    "predict",
    "spectrum",
    "train",
    "verification",
]
