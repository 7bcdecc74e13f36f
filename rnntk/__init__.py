"""Neural tangent kernels of recurrent networks: exact, finite and infinite width."""

__version__ = "0.1.0"

from rnntk import (
    activations,
    bounds,
    certified,
    datasets,
    interop,
    planning,
    plot,
    predict,
    spectrum,
    train,
    verification,
)
from rnntk.cells import cell_kernel
from rnntk.elman import ElmanRNN
from rnntk.empirical import empirical_kernel
from rnntk.ensemble import Ensemble, empirical_ensemble
from rnntk.infinite import infinite_kernel
from rnntk.kernel import Kernel
from rnntk.operators import EmpiricalOperator, empirical_operator
from rnntk.sequences import pad

__all__ = [
    "ElmanRNN",
    "EmpiricalOperator",
    "Ensemble",
    "Kernel",
    "activations",
    "bounds",
    "cell_kernel",
    "certified",
    "datasets",
    "empirical_ensemble",
    "empirical_kernel",
    "empirical_operator",
    "infinite_kernel",
    "interop",
    "pad",
    "planning",
    "plot",
    "predict",
    "spectrum",
    "train",
    "verification",
]
