"""Typed arguments and results with msgspec: ``TaskQueue(coders=[MsgspecCoder()])``."""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import PurePath
from typing import Any

from dbtaskqueue.coding import Coder, CodingError

from . import missing

try:
    import msgspec
except ImportError as error:
    raise missing("msgspec", error) from None

_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$(.*)`", re.DOTALL)
"""Msgspec's messages: what is wrong, and where in the value."""
_VALUE = re.compile(r"^(Invalid (?:enum )?value) .*", re.DOTALL)
"""The value, which the messages about enums, literals and tags contain."""


class MsgspecCoder(Coder):
    """Codes what msgspec knows: dates, UUID, Decimal, bytes, enums, dataclasses, structs and more; and paths.

    ``strict=False`` also converts texts to numbers and the like when a value is read, as ``msgspec.convert`` does.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict

    def can(self, kind: Any) -> bool:
        """See Coder."""
        with contextlib.suppress(Exception):  # it raises TypeError, and what resolving the names of a class raises
            msgspec.json.Decoder(kind, dec_hook=_from_text)
            return _is_known(msgspec.inspect.type_info(kind), set())
        return False

    def encode(self, value: Any, kind: Any) -> Any:
        """See Coder."""
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_as_text)

    def decode(self, value: Any, kind: Any) -> Any:
        """See Coder."""
        try:
            return msgspec.convert(value, kind, strict=self._strict, str_keys=True, dec_hook=_from_text)
        except msgspec.ValidationError as error:
            reason, place = found.groups() if (found := _PLACE.fullmatch(str(error))) else (str(error), "")
            raise CodingError(_VALUE.sub(r"\1", reason), place) from None


def _as_text(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not known to msgspec")


def _from_text(kind: type, value: object) -> object:
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _is_known(info: Any, seen: set[int]) -> bool:
    """Return whether msgspec knows all types in its description of an annotation; of others, only paths are coded."""
    if id(info) in seen:  # a class whose fields have its own type
        return True
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return isinstance(info.cls, type) and issubclass(info.cls, PurePath)
    if isinstance(info, msgspec.inspect.DictType) and isinstance(info.key_type, msgspec.inspect.CustomType):
        return False  # the key of an object does not get to the hooks
    if not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return True
    values = [getattr(info, name) for name in info.__struct_fields__ if name not in ("cls", "default")]
    parts = itertools.chain.from_iterable(value if isinstance(value, tuple) else [value] for value in values)
    return all(_is_known(part, seen) for part in parts)
