"""Numbers, ranges and tables as a reader wants them."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

import numpy as np

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def number(value: float | None, digits: int = 3) -> str:
    """A number as a reader wants it: few digits, powers of ten written out.

    Example:
        >>> number(0.12345), number(1.5e-9)[-4:], number(None)
        ('0.123', '10⁻⁹', 'not defined')
    """
    if value is None or not np.isfinite(value):
        return "not defined"
    rounded = float(f"{value:.{digits}g}")
    text = f"{rounded:.15g}"
    if not 1e-3 <= abs(rounded) < 1e5 and rounded != 0:
        mantissa, exponent = f"{rounded:e}".split("e")
        mantissa = f"{float(mantissa):.15g}"
        powers = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}\N{MULTIPLICATION SIGN}10{powers}"
    return text.replace("-", MINUS)


def percent(value: float | None) -> str:
    """A share in percent, in powers of ten where it is no share.

    Example:
        >>> percent(0.1234), percent(1e-5), percent(123.0)
        ('12.3%', '0.001%', '12300%')
    """
    if value is None or not np.isfinite(value):
        return number(None)
    if 0.01 <= abs(value) < 10 or value == 0:
        return f"{100 * value:.1f}%".replace("-", MINUS)
    return f"{number(100 * value)}%"


def score(metric: str, value: float | None) -> str:
    """An accuracy in percent, or an error in the units of the labels."""
    return f"{100 * value:.1f}%" if value is not None and "accuracy" in metric else number(value)


def span(values: Iterable[float | int], form: Callable[[float | None], str] = number) -> str:
    """From the least to the largest of what is finite."""
    known = [float(value) for value in values if np.isfinite(value)]
    if not known:
        return form(None)
    low, high = form(min(known)), form(max(known))
    return low if low == high else f"{low} to {high}"


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "network"), counted(2, "network")
        ('1 network', '2 networks')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table in HTML."""
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    top = f"<thead><tr>{cells}</tr></thead>" if head else ""
    attribute = f' class="{kind}"' if kind else ""
    return f"<table{attribute}>{top}<tbody>{''.join(lines)}</tbody></table>"


def figure(name: str, source: str, alt: str, caption: str) -> str:
    """A figure with its caption in HTML."""
    return (
        f'<figure id="{name}"><img src="{source}" alt="{escape(alt)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
