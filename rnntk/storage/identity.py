"""What a stored kernel is the kernel of: the run that may go on with it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rnntk.files import fingerprint
from rnntk.storage.places import Place

_BRIEF = 12  # digits of a checksum that messages show


def identity(
    kind: str,
    network: Mapping[str, Any],
    one: Mapping[str, np.ndarray],
    two: Mapping[str, np.ndarray] | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """All that decides the numbers of a kernel, in types that JSON has.

    Args:
        kind: what kernel it is.
        network: description of the network.
        one: arrays of the first batch, of which checksums are kept.
        two: arrays of the second batch, if there is one.
        more: further settings.
    """
    from rnntk import __version__  # the root imports this package

    found: dict[str, Any] = {"kind": kind, **network}
    for suffix, arrays in (("1", one), ("2", two or {})):
        for name, array in arrays.items():
            shape = "x".join(map(str, array.shape))
            found[f"{name}{suffix}"] = f"{array.dtype} {shape}, checksum {fingerprint(array)}"
    return {**found, **more, "rnntk": __version__, "jax": jax.__version__}


def check_same(place: Place, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse a store of another run, naming every difference.

    Raises:
        ValueError: with both values of each.
    """
    names = dict.fromkeys((*here, *there))
    other = [name for name in names if there.get(name) != here.get(name)]
    if other:
        told = "; ".join(
            f"{name} is {_brief(there.get(name))} there and {_brief(here.get(name))} here"
            for name in other
        )
        raise ValueError(
            f"{place} holds another kernel: {told}. Choose another path, or remove the store."
        )


def _brief(value: Any) -> str:
    head, sign, checksum = str(value).partition("checksum ")
    return head + sign + checksum[:_BRIEF]
