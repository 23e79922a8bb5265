"""Typed arguments and results with pydantic: ``TaskQueue(coders=[PydanticCoder()])``."""

from __future__ import annotations

import json
from typing import Any

from dbtaskqueue.coding import Coder, CodingError

from . import missing

try:
    import pydantic
    import pydantic_core
except ImportError as error:
    raise missing("pydantic", error) from None

_CONFIG = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
"""Any bytes can be stored, not only UTF-8. A model has a configuration of its own."""
_REASONS = {
    "union_tag_invalid": "Input tag does not match any of the expected tags",
    "zoneinfo_str": "Input should be a known time zone",
    "import_error": "Input should be a valid python path",
}
"""Messages in place of those of pydantic that contain the value, by the type of the error."""


class PydanticCoder(Coder):
    """Codes what pydantic knows: models, dataclasses, dates, UUID, Decimal, paths, bytes, enums and more.

    A model is stored as ``model_dump(mode="json")`` returns it, with the names of its fields, and read as
    ``model_validate_json`` does, also by aliases.
    """

    def __init__(self) -> None:
        self._adapters: dict[Any, _Adapter] = {}

    def can(self, kind: Any) -> bool:
        """See Coder."""
        try:
            self._adapter(kind)
        except Exception:  # of pydantic, and what resolving the names of a class raises
            return False
        return True

    def encode(self, value: Any, kind: Any) -> Any:
        """See Coder."""
        try:
            return self._adapter(kind).dump(value)
        except pydantic_core.PydanticSerializationError as error:
            raise CodingError(str(error)) from None

    def decode(self, value: Any, kind: Any) -> Any:
        """See Coder."""
        try:
            return self._adapter(kind).load(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            reason = _REASONS.get(first["type"], first["msg"])
            raise CodingError(reason, "".join(map(_place, first["loc"][1:]))) from None

    def _adapter(self, kind: Any) -> _Adapter:
        try:
            found = self._adapters.get(kind)
        except TypeError:  # ``Annotated`` with an object that has no hash
            return _Adapter(kind)
        if found is None:
            found = self._adapters[kind] = _Adapter(kind)
        return found


class _Adapter:
    """What pydantic has built for an annotation.

    A dataclass takes the configuration of what it is in, as in ``list[Point]``, but none on its own. So an annotation
    is wrapped in a tuple, and a dataclass is stored in the same way everywhere.
    """

    def __init__(self, kind: Any) -> None:
        self._adapter = pydantic.TypeAdapter(tuple[kind], config=_CONFIG)

    def dump(self, value: Any) -> Any:
        """Return a value as JSON values."""
        [dumped] = self._adapter.dump_python((value,), mode="json", by_alias=False, warnings=False)
        return dumped

    def load(self, value: Any) -> Any:
        """Return the value of JSON values.

        It is read from a JSON text, since pydantic accepts base64, and in strict mode the text of a date, only there.
        """
        return self._adapter.validate_json(json.dumps([value]), by_alias=True, by_name=True)[0]


def _place(part: int | str) -> str:
    return f"[{part}]" if isinstance(part, int) else f".{part}"
