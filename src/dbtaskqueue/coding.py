"""Typed arguments and results: values of other types than JSON's, coded by the annotations of a task function.

A ``Coder`` does it for the types of one library: ``integrations/msgspec.py`` and ``integrations/pydantic.py``. What is
stored is plain JSON. Annotations of JSON types take no coder, and their values are not touched.
"""

from __future__ import annotations

import collections
import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ._formats import payload
from ._formats.payload import JSON
from .checks import shown
from .dependencies import Reference
from .errors import PayloadError

_UNLIMITED = 2**62


class Coder:
    """Base class of coders, which turn values into JSON values and back, by the annotation of a parameter.

    Pass coders as ``TaskQueue(…, coders=[…])``. For each annotation, the first coder is used whose ``can`` returns
    True. Several threads may use a coder, and with ``executor="process"`` child processes do.
    """

    def can(self, kind: Any) -> bool:
        """Return whether this coder supports the annotation ``kind``."""
        raise NotImplementedError

    def encode(self, value: Any, kind: Any) -> JSON:
        """Return a value as JSON values. Raises CodingError, ValueError or TypeError for a value that does not fit."""
        raise NotImplementedError

    def decode(self, value: JSON, kind: Any) -> Any:
        """Return the value of JSON values that ``encode`` returned. Raises the same errors."""
        raise NotImplementedError


class CodingError(ValueError):
    """Raised by a coder: a value does not fit its annotation. ``place``: where in it, such as ``.size`` or ``[0]``.

    ``reason`` must not contain the value: it is logged.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = place


def check_coders(coders: Iterable[Coder]) -> tuple[Coder, ...]:
    """Return the coders of a queue. Raises TypeError for something that is not a ``Coder``."""
    found = tuple(coders)
    for coder in found:
        if isinstance(coder, type) and issubclass(coder, Coder):
            raise TypeError(f"coders takes objects, not classes: coders=[{coder.__name__}()]")
        if not isinstance(coder, Coder):
            raise TypeError(f"a coder must be a Coder, not {type(coder).__name__}")
    return found


# -- one function ----------------------------------------------------------------------------------


class CallCoding:
    """How the calls of one function are coded. Its annotations are resolved at the first use.

    ``name``: what messages call the function. An annotation that cannot be resolved is tried again once its module has
    more names.
    """

    def __init__(self, function: Callable[..., Any], name: str, coders: Sequence[Coder]) -> None:
        self._function = function
        self._name = name
        self._coders = coders
        self._plan: _Plan | None = None
        self._names: int | None = -1  # of the module, when the annotations were resolved; None: all of them are

    def is_of(self, function: Callable[..., Any]) -> bool:
        """Return whether it is that of this function."""
        return self._function is function

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return arguments as JSON values. Tasks among them stay. Raises PayloadError, which names the argument."""
        plan = self._current_plan() if args or kwargs else None
        return (args, kwargs) if plan is None else plan.encode(args, kwargs)

    def decode(self, args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return stored arguments as the annotations say. Raises PayloadError, which is final."""
        plan = self._current_plan() if args or kwargs else None
        try:
            return (args, kwargs) if plan is None else plan.decode(args, kwargs)
        except PayloadError as error:
            error.is_final = True  # a later attempt would raise the same error
            raise

    def encode_result(self, value: Any) -> JSON:
        """Return a result as JSON values. Raises PayloadError."""
        plan = None if value is None else self._current_plan()
        return value if plan is None or plan.result is None else plan.result.encode(value)

    def decode_result(self, value: JSON) -> Any:
        """Return a stored result as the return annotation says. Raises PayloadError."""
        plan = None if value is None else self._current_plan()
        return value if plan is None or plan.result is None else plan.result.decode(value)

    def _current_plan(self) -> _Plan | None:
        if self._names is not None and self._names != (names := len(_namespace(self._function))):
            annotations = _annotations(self._function)
            self._plan = _plan(self._function, self._name, annotations, self._coders)
            self._names = names if annotations.unresolved else None
        return self._plan


class _Codec:
    """Codes the values of one annotation with one coder. ``where`` is what messages call the value."""

    __slots__ = ("_coders", "_where", "coder", "has_choice", "kind")

    def __init__(self, where: str, kind: Any, coder: Coder, coders: Sequence[Coder]) -> None:
        self.kind = kind
        self.coder = coder
        self.has_choice = _has_choice(kind)
        self._where = where
        self._coders = coders

    def at(self, place: str) -> _Codec:
        """Return the same codec for a value at a place in this one."""
        return _Codec(f"{self._where}{place}", self.kind, self.coder, self._coders)

    def encode(self, value: Any) -> JSON:
        """Return a value as JSON values. Only what can be read back is accepted."""
        if isinstance(value, Reference):
            return value
        if isinstance(value, list | tuple) and _has_reference(value):
            return self._encode_items(value)
        try:
            encoded = self.coder.encode(value, self.kind)
            again = self.coder.decode(encoded, self.kind)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise PayloadError(self._why(error)) from None
        if self.has_choice and not _is_alike(value, again):
            why = f"JSON does not tell the types of {_named(self.kind)} apart: it would be read as another one"
            raise PayloadError(f"{self._where}: {why}")
        return encoded

    def decode(self, value: JSON) -> Any:
        """Return the value of JSON values. Raises PayloadError."""
        try:
            return self.coder.decode(value, self.kind)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise PayloadError(self._why(error)) from None

    def _encode_items(self, values: Sequence[Any]) -> list[Any]:
        """Return a list or tuple with tasks in it: their results will be at their places."""
        kinds = _item_kinds(self.kind, len(values))
        codecs = [_codec(f"{self._where}[{index}]", kind, self._coders) for index, kind in enumerate(kinds)]
        return [value if codec is None else codec.encode(value) for value, codec in zip(values, codecs, strict=True)]

    def _why(self, error: Exception) -> str:
        if isinstance(error, CodingError):
            return f"{self._where}{error.place}: {error.reason}"
        return f"{self._where}: {str(error) or type(error).__name__}"


class _Group(typing.NamedTuple):
    """The arguments of calls of one shape that one coder codes together, as a tuple: this takes half of the time.

    ``positions`` and ``names`` are theirs; ``kind`` is the tuple's annotation. ``is_whole``: they are all arguments.
    """

    coder: Coder
    kind: Any
    positions: list[int]
    names: list[str]
    is_whole: bool


_MOST_SHAPES = 100
"""How many shapes of calls a function remembers: with ``**kwargs``, there may be any number."""


class _Plan:
    """The codecs of a function: by position, of ``*args``, by name, of ``**kwargs``, and of the result.

    None is for a value that is not touched.
    """

    def __init__(self) -> None:
        self.positional: list[_Codec | None] = []
        self.rest: _Codec | None = None
        self.named: dict[str, _Codec | None] = {}
        self.others: _Codec | None = None
        self.result: _Codec | None = None
        self._groups: dict[tuple[int, tuple[str, ...]], _Group | None] = {}

    def codecs(self) -> list[_Codec]:
        """Return all codecs."""
        found = (*self.positional, self.rest, *self.named.values(), self.others, self.result)
        return [codec for codec in found if codec is not None]

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of a call as JSON values."""
        group = self._group(args, kwargs)
        if group is not None:
            try:
                encoded = group.coder.encode(_values_of(group, args, kwargs), group.kind)
                group.coder.decode(encoded, group.kind)
                return _with_values(group, args, kwargs, encoded)
            except Exception:  # below, a task stays, and the error for another value names the argument
                pass
        return self._each(args, kwargs, _Codec.encode)

    def decode(self, args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return stored arguments as the annotations say."""
        group = self._group(args, kwargs)
        if group is not None:
            try:
                values = group.coder.decode(_values_of(group, args, kwargs), group.kind)
                return _with_values(group, args, kwargs, values)
            except Exception:
                pass
        return self._each(args, kwargs, _Codec.decode)

    def _each(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], code: Callable[[_Codec, Any], Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of a call, each coded by its codec."""
        positional, named = self._of_call(args, kwargs)
        coded = [value if codec is None else code(codec, value) for value, codec in zip(args, positional, strict=True)]
        return coded, {
            name: value if (codec := named[name]) is None else code(codec, value) for name, value in kwargs.items()
        }

    def _of_call(
        self, args: Sequence[Any], kwargs: Iterable[str]
    ) -> tuple[list[_Codec | None], dict[str, _Codec | None]]:
        """Return the codecs of a call's arguments."""
        positional = self.positional[: len(args)]
        for index in range(len(args) - len(positional)):
            positional.append(None if self.rest is None else self.rest.at(f"[{index}]"))
        named = {
            name: self.named[name]
            if name in self.named
            else None
            if self.others is None
            else self.others.at(f".{name}")
            for name in kwargs
        }
        return positional, named

    def _group(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Group | None:
        """Return how the arguments of a call of this shape are coded together; None if each is coded on its own."""
        shape = len(args), tuple(kwargs)
        if shape not in self._groups:
            if len(self._groups) >= _MOST_SHAPES:
                return None
            self._groups[shape] = self._new_group(args, kwargs)
        return self._groups[shape]

    def _new_group(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Group | None:
        positional, named = self._of_call(args, kwargs)
        positions = [index for index, codec in enumerate(positional) if codec is not None]
        names = [name for name, codec in named.items() if codec is not None]
        codecs = [codec for codec in (*positional, *named.values()) if codec is not None]
        if len(codecs) < 2 or any(codec.has_choice or codec.coder is not codecs[0].coder for codec in codecs):
            return None
        kind: Any = tuple.__class_getitem__(tuple(codec.kind for codec in codecs))
        is_whole = not kwargs and len(positions) == len(args)
        return _Group(codecs[0].coder, kind, positions, names, is_whole) if codecs[0].coder.can(kind) else None


def _values_of(group: _Group, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    if group.is_whole:
        return tuple(args)
    return (*[args[position] for position in group.positions], *[kwargs[name] for name in group.names])


def _with_values(
    group: _Group, args: Sequence[Any], kwargs: Mapping[str, Any], values: Any
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a call with these in place of those of the group.

    Raises TypeError unless there is one for each: a coder may accept the annotation of a tuple, but not encode a tuple
    as a list.
    """
    if not isinstance(values, list | tuple) or len(values) != len(group.positions) + len(group.names):
        raise TypeError("the values of a group must be a list")
    if group.is_whole:
        return list(values), kwargs
    coded, named, rest = list(args), dict(kwargs), iter(values)
    for position, value in zip(group.positions, rest, strict=False):
        coded[position] = value
    for name, value in zip(group.names, rest, strict=True):
        named[name] = value
    return coded, named


def _plan(function: Callable[..., Any], name: str, found: _Annotations, coders: Sequence[Coder]) -> _Plan | None:
    """Return the codecs of a function, or None if nothing has to be coded."""
    plan = _Plan()
    plan.result = _codec(f"{name}: result", found.kinds.get("return", Any), coders)
    for parameter in found.signature.parameters.values():
        codec = _codec(f"{name}: argument {parameter.name}", found.kinds.get(parameter.name, Any), coders)
        if parameter.kind is parameter.VAR_POSITIONAL:
            plan.rest = codec
        elif parameter.kind is parameter.VAR_KEYWORD:
            plan.others = codec
        else:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                plan.positional.append(codec)
            if parameter.kind is not parameter.POSITIONAL_ONLY:
                plan.named[parameter.name] = codec
    return plan if plan.codecs() else None


def _codec(where: str, kind: Any, coders: Sequence[Coder]) -> _Codec | None:
    if _is_plain(kind):
        return None
    coder = next((coder for coder in coders if coder.can(kind)), None)
    return None if coder is None else _Codec(where, kind, coder, coders)


# -- annotations -----------------------------------------------------------------------------------


class _Annotations(typing.NamedTuple):
    """The annotations of a function by parameter, that of the result as "return", and those that have no meaning."""

    signature: inspect.Signature
    kinds: dict[str, Any]
    unresolved: dict[str, Any]


def _annotations(function: Callable[..., Any]) -> _Annotations:
    """Return the annotations of a function. Each is resolved on its own: one may name what only a type checker sees."""
    signature = inspect.signature(function)
    given = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    given["return"] = signature.return_annotation
    kinds, unresolved = {}, {}
    type_parameters = getattr(_code_of(function), "__type_params__", ())
    for name, annotation in given.items():
        if annotation is inspect.Parameter.empty:
            continue
        holder = types.SimpleNamespace(__annotations__={name: annotation}, __type_params__=type_parameters)
        try:
            kinds[name] = typing.get_type_hints(holder, _namespace(function), include_extras=True)[name]
        except Exception:  # NameError, and whatever its expression raises
            unresolved[name] = annotation
    result = kinds.get("return")
    if typing.get_origin(result) in (collections.abc.Coroutine, collections.abc.Awaitable):
        kinds["return"] = typing.get_args(result)[-1]
    return _Annotations(signature, kinds, unresolved)


def _code_of(function: Callable[..., Any]) -> Any:
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    return function if hasattr(function, "__globals__") else type(function).__call__  # an object that can be called


def _namespace(function: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = getattr(_code_of(function), "__globals__", {})
    return found


_ABC = collections.abc
_LISTS = {list, _ABC.Sequence, _ABC.MutableSequence, _ABC.Collection, _ABC.Iterable}
_DICTS = {dict, _ABC.Mapping, _ABC.MutableMapping}
_PLAIN = {Any, object, None, types.NoneType, bool, int, float, str, *_LISTS, *_DICTS}
_SETS = {set, frozenset, _ABC.Set, _ABC.MutableSet}
_UNIONS = {typing.Union, types.UnionType}
_LITERALS = {str, int, bool, types.NoneType}


def _is_plain(kind: Any, within: tuple[Any, ...] = ()) -> bool:
    """Return whether all values of an annotation are JSON values. Of a type variable, nothing is known."""
    if isinstance(kind, typing.TypeVar) or any(kind is each for each in within):  # an alias may name itself
        return True
    if isinstance(kind, typing.NewType):
        return _is_plain(kind.__supertype__, within)
    if _is_alias(kind):
        return _is_plain(kind.__value__, (*within, kind))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is None:
        return isinstance(kind, collections.abc.Hashable) and kind in _PLAIN
    if origin is typing.Literal:
        return all(type(value) in _LITERALS for value in args)
    if origin in _UNIONS or origin in _LISTS:
        return all(_is_plain(each, within) for each in args)
    if origin in _DICTS:
        return not args or (args[0] in (str, Any) and _is_plain(args[1], within))
    return False


def _is_alias(kind: Any) -> bool:
    return type(kind).__name__ == "TypeAliasType"  # of Python 3.12, and of typing_extensions


def _item_kinds(kind: Any, number: int) -> list[Any]:
    """Return the annotations of the items of a list or tuple that is annotated with ``kind``."""
    while _is_alias(kind) or typing.get_origin(kind) is typing.Annotated:
        kind = kind.__value__ if _is_alias(kind) else typing.get_args(kind)[0]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        others = [each for each in args if each is not types.NoneType]
        return _item_kinds(others[0], number) if len(others) == 1 else [Any] * number
    if origin is tuple and len(args) == number and args[-1] is not Ellipsis:
        return list(args)
    if args and (origin in _LISTS or origin in _SETS or origin is tuple):
        return [args[0]] * number
    return [Any] * number


def _has_choice(kind: Any) -> bool:
    """Return whether an annotation has a union of which JSON may not tell the parts apart."""
    if _is_alias(kind):
        return False
    args = typing.get_args(kind)
    if typing.get_origin(kind) in _UNIONS and len([each for each in args if each is not types.NoneType]) > 1:
        return True
    return typing.get_origin(kind) is not typing.Literal and any(map(_has_choice, args))


def _has_reference(values: Sequence[Any]) -> bool:
    return any(
        isinstance(value, Reference) or (isinstance(value, list | tuple) and _has_reference(value)) for value in values
    )


def _is_alike(value: Any, again: Any) -> bool:
    """Return whether values have the same types, also inside of lists, tuples and dictionaries."""
    if isinstance(value, list | tuple) and isinstance(again, list | tuple):
        return len(value) == len(again) and all(map(_is_alike, value, again))
    if isinstance(value, dict) and isinstance(again, dict):
        return len(value) == len(again) and all(map(_is_alike, value.values(), again.values()))
    if isinstance(value, set | frozenset) and isinstance(again, set | frozenset):
        return collections.Counter(map(type, value)) == collections.Counter(map(type, again))
    return type(value) is type(again)


def _named(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else shown(kind)


# -- what is missing -------------------------------------------------------------------------------


def explained_calls(
    error: PayloadError, function: Any, name: str, has_coders: bool, payloads: Iterable[JSON]
) -> PayloadError:
    """Return the error for calls that could not be stored. If an annotation needs a coder, it names that argument.

    ``function``: the function of the calls, if it is known here.
    """
    try:
        found = _annotations(function)
        calls = [found.signature.bind(*value["args"], **value["kwargs"]) for value in payloads]
    except (TypeError, ValueError, KeyError):  # the function or its arguments are not known
        return error
    for call in calls:
        for parameter, argument in call.arguments.items():
            explained = _explained(f"{name}: argument {parameter}", argument, found, parameter, has_coders)
            if explained is not None:
                return explained
    return error


def explained_result(error: PayloadError, function: Any, name: str, has_coders: bool, value: Any) -> PayloadError:
    """Return the error for a result that could not be stored. If its annotation needs a coder, it says so."""
    try:
        found = _annotations(function)
    except (TypeError, ValueError):
        return error
    return _explained(f"{name}: result", value, found, "return", has_coders) or error


def _explained(where: str, value: Any, found: _Annotations, parameter: str, has_coders: bool) -> PayloadError | None:
    """Return the error for a value that is not JSON and whose annotation needs a coder; else None."""
    kind = found.kinds.get(parameter, Any)
    if parameter in found.unresolved:
        hint = f"its annotation {shown(found.unresolved[parameter])} cannot be resolved; import its names at run time"
    elif _is_plain(kind):
        return None
    elif has_coders:
        hint = f"no coder of this queue takes the annotation {_named(kind)}"
    else:
        extra, coder = ("pydantic", "PydanticCoder") if _has_model(kind) else ("msgspec", "MsgspecCoder")
        hint = f"for its annotation, pip install 'dbtaskqueue[{extra}]' and use TaskQueue(…, coders=[{coder}()])"
    try:
        payload.encode(value, limit=_UNLIMITED, name=where)
    except PayloadError as error:
        return PayloadError(f"{error}; {hint}")
    return None


def _has_model(kind: Any) -> bool:
    """Return whether an annotation has a model of pydantic."""
    return hasattr(kind, "model_validate") or any(map(_has_model, typing.get_args(kind)))
