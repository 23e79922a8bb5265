"""How pages write numbers, times and texts. Templates use these functions as filters. Pure, but for the clock."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime

from .._formats.payload import JSON
from .._system import clock

LONGEST = 2000
"""The characters of a payload, a result or an error that a page shows at first."""
_UNITS = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160)) if code not in (9, 10)}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}


def span(seconds: float | None) -> str:
    """Return a duration in two units: ``42s``, ``3m 07s``, ``2h 05m``, ``9d 04h``; ``0.4s`` below ten seconds."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if 0 < seconds < 9.95 and seconds != int(seconds):
        return f"{seconds:.1f}s" if seconds >= 0.05 else f"{seconds * 1000:.0f}ms"
    whole = max(0, int(seconds))
    for unit, size, smaller, small in _UNITS:
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // small:02}{smaller}"
    return f"{whole}s"


def since(at: int | None, now: int | None = None) -> str:
    """Return the time from a moment until now."""
    return "" if at is None else span(max(0, (now or clock.now()) - at) // 1_000_000)


def until(at: int | None) -> str:
    """Return the time from now until a moment."""
    return "" if at is None else span(max(0, at - clock.now()) // 1_000_000)


def iso(at: int | None) -> str:
    """Return a moment as a ``datetime`` attribute, in UTC, to the second."""
    moment = clock.to_datetime(at)
    return "" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def utc(at: int | None) -> str:
    """Return a moment for people without JavaScript."""
    moment = clock.to_datetime(at)
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def brief_utc(at: int | None) -> str:
    """Return a moment of today without its date, and another one without its seconds."""
    text = utc(at)
    return text[11:] if text[:10] == utc(clock.now())[:10] else f"{text[:16]}{text[19:]}"


def moment(value: datetime | None) -> int | None:
    """Return a datetime in microseconds."""
    return None if value is None else round(value.timestamp() * 1_000_000)


def number(value: float | None) -> str:
    """Return a number with separators: ``12,345``."""
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def size(value: float | None) -> str:
    """Return a number of bytes: ``412 MiB``."""
    if value is None:
        return ""
    rest, unit = float(value), 0
    while rest >= 1024 and unit < len(_SIZES) - 1:
        rest, unit = rest / 1024, unit + 1
    return f"{rest:.0f} {_SIZES[unit]}" if rest >= 100 or unit == 0 else f"{rest:.1f} {_SIZES[unit]}"


def percent(share: float | None) -> str:
    """Return a share: ``63 %``. Only what is complete is 100 %."""
    return "" if share is None else f"{math.floor(share * 100)} %"


def tasks(count: int) -> str:
    """Return a number of tasks: ``1 task``, ``12 tasks``."""
    return plural(count, "task")


def plural(count: int, noun: str) -> str:
    """Return a number of things: ``1 worker``, ``12 workers``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shown(text: object) -> str:
    """Return a text with its control characters, and those that turn the direction of text, written out."""
    return str(text).translate(_CONTROLS)


def first(text: str | None, most: int = 200) -> str:
    """Return the first characters of a text, on one line."""
    line = " ".join((text or "")[: most + 1].split())
    return shown(line if len(line) <= most else line[:most] + "…")


def call_text(function: str | None, payload: str | None) -> str:
    """Return the arguments of a call, or another payload, as people would write it. ``payload`` may be cut."""
    try:
        value: JSON = json.loads(payload or "null")
    except (ValueError, RecursionError):
        return first(payload)
    if function is not None and isinstance(value, dict) and value.keys() == {"args", "kwargs"}:
        args, kwargs = value["args"], value["kwargs"]
        if isinstance(args, list) and isinstance(kwargs, dict):
            words = [*map(_compact, args), *(f"{name}={_compact(each)}" for name, each in kwargs.items())]
            return first(", ".join(words))
    if isinstance(value, dict) and isinstance(value.get("argv"), list):
        return first(" ".join(map(str, value["argv"])))
    return "" if value is None else first(_compact(value))


def pretty(text: str | None) -> str:
    """Return JSON with indentation; a text that is not JSON as it is."""
    try:
        return shown(json.dumps(json.loads(text or "null"), ensure_ascii=False, indent=2))
    except (ValueError, RecursionError):
        return shown(text or "")


def error_line(error: str | None) -> str:
    """Return the most useful line of an error, without the module of its type."""
    lines = (error or "").strip().splitlines() or [""]
    found = lines[-1] if "Traceback" in lines[0] else lines[0]
    return first(re.sub(r"^(\w+\.)+(?=\w+: )", "", found), 300)


def details(values: Mapping[str, object]) -> str:
    """Return what the audit log has about an action: ``queue:mail state:failed``, ``priority:7``."""
    where = values.get("where")
    flat = {**values, **(where if isinstance(where, dict) else {})}
    pairs = [(name, _listed(value)) for name, value in flat.items() if name not in ("where", "ids")]
    return first(" ".join(f"{name}:{value}" for name, value in pairs), 300)


def _listed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _compact(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False)


FILTERS = {
    each.__name__: each
    for each in (
        *(
            span,
            since,
            until,
            iso,
            utc,
            brief_utc,
            moment,
            number,
            size,
            percent,
            tasks,
            plural,
            shown,
            first,
            call_text,
            pretty,
            error_line,
            details,
        ),
    )
}
