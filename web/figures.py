"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def percent(share: float, digits: int = 1) -> str:
    """0.4315 as "43.2%"."""
    return f"{100 * share:.{digits}f}%"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign: "+12.3", "\u22124.0", "0.0"."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\u2212")


def count(number: int) -> str:
    """With commas: 1,234."""
    return f"{number:,}"


def probability(p: float) -> str:
    """A p-value: "0.032", or "< 0.0001"."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(number: int) -> str:
    """Bytes in decimal units: "12.3 MB"."""
    value = float(number)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def radius(eps: float, norm: str) -> str:
    """An eps as people write it: "8/255" for a whole number of grey levels under linf, else "0.1"."""
    levels, short = eps * 255, f"{eps:.4g}"
    is_fraction = norm == "linf" and round(levels) > 0 and abs(levels - round(levels)) < 1e-6
    return f"{round(levels)}/255" if is_fraction and len(short) > len("0.25") else short
