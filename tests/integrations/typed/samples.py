"""A value of each annotation of ``typed_tasks``. As a program, it checks them with the libraries that are installed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import typed_tasks
from typed_tasks import Color, Job, Level, Order, Pair, Point, Tree

DAY = date(2026, 1, 2)
POINT = Point(1, DAY, b"\xff\x00")
ORDER = Order(id=UUID(int=7), price=Decimal("1.10"), lines=[POINT], customerName="Ann")
SAMPLES: dict[str, Any] = {
    "date": date(2026, 11, 28),
    "datetime": datetime(2026, 11, 28, 12, tzinfo=UTC),
    "time": time(1, 2, 3, 4),
    "timedelta": timedelta(days=-1, microseconds=1),
    "uuid": UUID(int=7),
    "decimal": Decimal("1.10"),
    "path": Path("a/b.png"),
    "bytes": b"\xff\x00",
    "enum": Color.RED,
    "int_enum": Level.HIGH,
    "dataclass": POINT,
    "tree": Tree(Decimal(1), [Tree(Decimal(2)), Tree(Decimal(3))]),
    "named_tuple": Pair(UUID(int=1), DAY),
    "typed_dict": {"on": DAY, "size": 1},
    "set": {DAY},
    "frozenset": frozenset([1, 2]),
    "tuple": (1, DAY),
    "long_tuple": (Decimal(1), Decimal(2)),
    "list": [UUID(int=1)],
    "sequence": [DAY],
    "dict": {"a": Decimal("1.10")},
    "int_keys": {7: DAY},
    "mapping": {DAY: 7},
    "optional": DAY,
    "union": DAY,
    "nested": {"a": [(DAY, POINT), (DAY, None)]},
    "struct": Job(Path("a"), datetime(2026, 1, 2), Job(Path("b"), datetime(2026, 1, 2))),
    "structs": [Job(Path("a"), datetime(2026, 1, 2, tzinfo=UTC))],
    "model": ORDER,
    "models": {"a": ORDER},
    "text_union": DAY,
    "path_union": Path("a"),
    "annotated": 4,
}


def main() -> None:
    """Print what does not come back."""
    for coder, functions in typed_tasks.echoes.items():
        for name, function in functions.items():
            value, coding = SAMPLES[name], function.coding
            assert coding is not None
            try:
                [stored, _] = json.loads(json.dumps(coding.encode([value, ""], {})[0]))
                [again, _] = coding.decode([stored, ""], {})[0]
            except Exception as error:
                print(coder, name, type(error).__name__, error)
            else:
                if (type(again), again) != (type(value), value):
                    print(coder, name, stored, again)


if __name__ == "__main__":
    main()
