"""Neural tangent kernels of recurrent networks: exact, finite and infinite width."""

__version__ = "0.1.0"

import importlib
from types import ModuleType

from rnntk import (
    activations,
    bounds,
    compare,
    concepts,
    datasets,
    empirical,
    interop,
    layouts,
    predict,
    sgd_risk,
    spectrum,
    storage,
    train,
    verification,
)
from rnntk.empirical.cells import cell_ntk
from rnntk.empirical.ensemble import Ensemble, empirical_ensemble
from rnntk.empirical.kernel import empirical_kernel
from rnntk.empirical.operator import EmpiricalOperator, empirical_operator
from rnntk.infinite.kernel import infinite_kernel
from rnntk.kernel import Kernel
from rnntk.network.elman import ElmanRNN
from rnntk.sequences import pad
from rnntk.storage.kernels import open_kernel

__all__ = [
    "ElmanRNN",
    "EmpiricalOperator",
    "Ensemble",
    "Kernel",
    "activations",
    "bounds",
    "cell_ntk",
    "compare",
    "concepts",
    "datasets",
    "empirical",
    "empirical_ensemble",
    "empirical_kernel",
    "empirical_operator",
    "estimators",
    "infinite_kernel",
    "interop",
    "layouts",
    "open_kernel",
    "pad",
    "plot",
    "predict",
    "sgd_risk",
    "spectrum",
    "storage",
    "train",
    "verification",
]


def __getattr__(name: str) -> ModuleType:
    """What loads scikit-learn or matplotlib, half a second and more, when it is asked for."""
    if name in {"estimators", "plot"}:
        return importlib.import_module(f"rnntk.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
