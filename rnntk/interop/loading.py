"""neural-tangents on current JAX, without TensorFlow, and without touching either.

neural-tangents 0.6.5, the last version, wants names that JAX has since removed, and imports
TensorFlow for its ``experimental`` module alone. Its files are therefore run with an ``__import__``
of their own, which hands them views of a few modules: the real ones, with what they lack. Nobody
else ever sees a view, so nothing has to be put back.
"""

import builtins
import importlib
import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, NoReturn

import jax.core
import jax.extend.core
import jax.interpreters.ad
import jax.numpy
import scipy.linalg

NAME = "neural_tangents"
TESTED = {"neural-tangents": ("0.6.5",), "jax": ("0.10.2", "0.12.0.1")}
WITH = " on ".join(f"{name} {' or '.join(versions)}" for name, versions in TESTED.items())
INSTALL = (
    "Install it with `pip install --no-deps neural-tangents frozendict`; the extra "
    "rnntk[neural-tangents] does the same, but adds TensorFlow (1.9 GB), which is not needed."
)
EXPERIMENTAL = ("empirical_ntk_fn_tf", "get_apply_fn_and_params")
_LOCK = threading.Lock()


def neural_tangents() -> ModuleType:
    """The package neural-tangents, working on current JAX and without TensorFlow.

    What of it works: ``stax``, ``predict``, ``batch``, ``monte_carlo_kernel_fn``, ``linearize``,
    ``taylor_expand``, and the empirical kernels by Jacobian contraction (1, its default) and by
    NTK-vector products (2). Its structured derivatives (3) and its automatic choice (0) read JAX
    programs in a form that no longer exists: asking for them raises ``NotImplementedError``, as
    do the functions of ``experimental``, which convert TensorFlow models.

    The first call takes less than a second, later ones return the same object, from any thread.
    From then on ``import neural_tangents`` finds it too. A failed import of the package beforehand
    does no harm. One that succeeded, by means of the caller's own, is left in place, and a copy
    loaded beside it is returned: do not mix their objects.

    Returns:
        The package, as ``import neural_tangents as nt`` would give.

    Raises:
        ImportError: if the package, or frozendict, which it needs, is not installed, or if it
            does not import on the JAX that is.

    Warns:
        UserWarning: if the version of JAX or of neural-tangents is not one this was tested with.

    Example:
        >>> import numpy as np, rnntk
        >>> nt = rnntk.interop.neural_tangents()
        >>> init_fn, apply_fn, kernel_fn = nt.stax.serial(nt.stax.Dense(8), nt.stax.Relu())
        >>> kernel_fn(np.ones((2, 3), "float32"), None, "nngp").shape
        (2, 2)
    """
    with _LOCK:
        return _load()


@cache
def _load() -> ModuleType:
    finder = _Finder(_views())
    if finder.find_spec(NAME) is None:
        raise ImportError(f"The package neural-tangents is not installed. {INSTALL}", name=NAME)
    found = _check_versions()
    with _own_modules(), _first(finder):
        try:
            package = importlib.import_module(NAME)
            table = importlib.import_module(f"{NAME}._src.empirical")._implementation_to_ntk_fn
            for method in map(package.NtkImplementation, (0, 3)):
                table[method] = partial(_refuse_implementation, method)
        except Exception as error:
            remedy = INSTALL if isinstance(error, ModuleNotFoundError) else f"It does with {WITH}."
            raise ImportError(f"{found} does not import: {error}. {remedy}", name=NAME) from error
    return package


def _check_versions() -> str:
    """Warn of untested versions, and return those found, in words."""
    found = {}
    for name in TESTED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a bare copy on the path
            found[name] = "of unknown version"
    text = " on ".join(f"{name} {number}" for name, number in found.items())
    if any(number not in TESTED[name] for name, number in found.items()):
        warnings.warn(
            f"rnntk.interop was tested with {WITH}, and found {text}. What it returns may fail or, "
            "worse, be wrong: compare with a case that you know.",
            stacklevel=4,
        )
    return text


@contextmanager
def _own_modules() -> Iterator[None]:
    """Start without modules of the package, and leave those that a caller's import had made.

    A failed import leaves parts behind that hold the real modules instead of the views. They are
    of no use to anybody, but come back if this import fails as well.
    """
    before = _take_modules()
    try:
        yield
    except BaseException:
        _take_modules()
        sys.modules.update(before)
        raise
    if NAME in before:
        _take_modules()
        sys.modules.update(before)


def _take_modules() -> dict[str, ModuleType]:
    # A list first: other threads may be importing.
    names = [name for name in list(sys.modules) if name.partition(".")[0] == NAME]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def _first(finder: MetaPathFinder) -> Iterator[None]:
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _View(ModuleType):
    """A module as it is, with some further names."""

    def __init__(self, real: ModuleType, **names: object) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(names, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _views() -> dict[str, ModuleType]:
    """Modules with what neural-tangents needs of them, by name."""
    names = ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    core = _View(jax.core, **{name: getattr(jax.extend.core, name) for name in names})
    # Only a key in the tables of rules of the structured derivatives.
    ad = _View(jax.interpreters.ad, zeros_like_p=jax.extend.core.Primitive("zeros_like"))
    util = ModuleType("jax.util")
    util.__dict__.update(safe_map=_safe_map, safe_zip=_safe_zip)
    interpreters = _View(jax.interpreters, ad=ad)
    numpy = _View(jax.numpy, size=_size)
    linalg = _View(scipy.linalg, eigvalsh=_eigvalsh)
    views = (
        *(core, ad, util, interpreters, numpy, linalg),
        _View(jax, core=core, interpreters=interpreters, numpy=numpy, util=util),
        _View(scipy, linalg=linalg),
    )
    return {view.__name__: view for view in views}


def _safe_zip(*sequences: Iterable[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*sequences, strict=True))


def _safe_map(function: Callable[..., Any], *sequences: Iterable[Any]) -> list[Any]:
    return [function(*items) for items in _safe_zip(*sequences)]


def _size(array: Any, axis: int | None = None) -> int:
    """jax.numpy's, which is about to refuse what has a shape but no numbers."""
    shape = jax.numpy.shape(array)
    return math.prod(shape) if axis is None else shape[axis]


def _eigvalsh(matrix: Any, eigvals: tuple[int, int] | None = None) -> Any:
    """scipy's, whose ``eigvals`` has another name since SciPy 1.14."""
    return scipy.linalg.eigvalsh(matrix, subset_by_index=eigvals)


class _Finder(MetaPathFinder):
    """Finds neural-tangents where it is, to be run with views of other modules."""

    def __init__(self, views: Mapping[str, ModuleType]) -> None:
        self.views = views

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == f"{NAME}.experimental":
            return ModuleSpec(fullname, _Experimental())
        if fullname.partition(".")[0] != NAME:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self.views)
                return spec
        return None


class _Loader(Loader):
    """Runs a module with an ``__import__`` of its own, which Python reads from ``__builtins__``.

    It serves the imports inside the module's functions as well, whenever they are called.
    """

    def __init__(self, real: Loader, views: Mapping[str, ModuleType]) -> None:
        self.real, self.views = real, views

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__loader__ = module.__spec__.loader = self.real
        module.__dict__["__builtins__"] = vars(builtins) | {"__import__": self._import}
        self.real.exec_module(module)

    def _import(self, name: str, *arguments: Any, **named: Any) -> ModuleType:
        if name == "jax.util":  # imported in the form `from jax.util import ...`, and not on disk
            return self.views[name]
        module = builtins.__import__(name, *arguments, **named)
        return self.views.get(module.__name__, module)


class _Experimental(Loader):
    """Stands in for the one module that needs TensorFlow."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        for name in EXPERIMENTAL:
            setattr(module, name, partial(_refuse_experimental, name))


def _refuse_experimental(name: str, *arguments: object, **named: object) -> NoReturn:
    raise NotImplementedError(
        f"neural_tangents.experimental.{name} needs TensorFlow, which rnntk leaves out. Write the "
        "model in JAX, and use neural_tangents.empirical_ntk_fn."
    )


def _refuse_implementation(method: Any, **arguments: object) -> NoReturn:
    raise NotImplementedError(
        f"implementation={int(method)} ({method.name}) of neural-tangents does not work on "
        "current JAX. Use 1 (JACOBIAN_CONTRACTION) or 2 (NTK_VECTOR_PRODUCTS), or for recurrent "
        "networks rnntk.empirical_kernel."
    )
