"""Values of each annotation of ``typed_tasks``, for hypothesis."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import typed_tasks
from hypothesis import strategies as st
from typed_tasks import Color, Job, Level, Order, Pair, Point, Tree

dates = st.dates()
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=-3)), timezone(timedelta(hours=5, minutes=30))])
datetimes = st.datetimes(timezones=zones)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
paths = st.text("abc./ ü", min_size=1, max_size=8).map(Path)
small = st.integers(-(2**53), 2**53)
points = st.builds(Point, x=small, on=dates, data=st.binary(max_size=8))
trees = st.recursive(st.builds(Tree, decimals), lambda more: st.builds(Tree, decimals, st.lists(more, max_size=3)))
jobs = st.recursive(st.builds(Job, paths, datetimes), lambda more: st.builds(Job, paths, datetimes, more))
orders = st.builds(
    lambda name, **fields: Order(customerName=name, **fields),
    texts,
    id=st.uuids(),
    price=decimals,
    lines=st.lists(points, max_size=2),
)

STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "date": dates,
    "datetime": datetimes,
    "time": st.times(),
    "timedelta": st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    "uuid": st.uuids(),
    "decimal": decimals,
    "path": paths,
    "bytes": st.binary(max_size=20),
    "enum": st.sampled_from(Color),
    "int_enum": st.sampled_from(Level),
    "dataclass": points,
    "tree": trees,
    "named_tuple": st.builds(Pair, st.uuids(), dates),
    "typed_dict": st.fixed_dictionaries({"on": dates, "size": small}),
    "set": st.sets(dates, max_size=4),
    "frozenset": st.frozensets(small, max_size=4),
    "tuple": st.tuples(small, dates),
    "long_tuple": st.lists(decimals, max_size=4).map(tuple),
    "list": st.lists(st.uuids(), max_size=4),
    "sequence": st.lists(dates, max_size=4),
    "dict": st.dictionaries(texts, decimals, max_size=4),
    "int_keys": st.dictionaries(small, dates, max_size=4),
    "mapping": st.dictionaries(dates, small, max_size=4),
    "optional": st.none() | dates,
    "union": st.none() | dates | small,
    "nested": st.dictionaries(texts, st.lists(st.tuples(dates, st.none() | points), max_size=2), max_size=2),
    "struct": jobs,
    "structs": st.lists(jobs, max_size=3),
    "model": orders,
    "models": st.dictionaries(texts, orders, max_size=2),
    "text_union": dates | st.sampled_from(["", "soon", "2026"]),
    "path_union": paths | small,
    "annotated": st.integers(4, 2**53),
}


def values_of(coder: str, most: int = 3) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """Return a strategy for names of a coder's annotations with values, some of each."""
    lists = [st.lists(STRATEGIES[name], min_size=1, max_size=most) for name in typed_tasks.kinds_of(coder)]
    names = list(typed_tasks.kinds_of(coder))
    return st.tuples(*lists).map(
        lambda found: [(name, value) for name, values in zip(names, found, strict=True) for value in values]
    )
