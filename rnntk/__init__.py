"""Neural tangent kernels of recurrent networks: exact, finite and infinite width."""

__version__ = "0.1.0"

from rnntk import (
    activations,
    bounds,
    certified,
    datasets,
    interop,
    plot,
    predict,
    spectrum,
    train,
    verification,
)
from rnntk.elman import ElmanRNN
from rnntk.empirical import empirical_kernel
from rnntk.infinite import infinite_kernel
from rnntk.kernel import Kernel
from rnntk.sequences import pad

__all__ = [
    "ElmanRNN",
    "Kernel",
    "activations",
    "bounds",
    "certified",
    "datasets",
    "empirical_kernel",
    "infinite_kernel",
    "interop",
    "pad",
    "plot",
    "predict",
    "spectrum",
    "train",
    "verification",
]
