"""The code of tasks: a callback and task functions, and how another process finds the same code.

Another process finds a function by its module and its name there, as with ``multiprocessing``. No code comes from the
database: a task only names its function, and the name is looked up here.
"""

from __future__ import annotations

import importlib
import inspect
import runpy
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from .._formats import payload
from .._formats.payload import JSON
from .._store.contract import TaskRecord
from ..coding import CallCoding, Coder, explained_result
from ..errors import PayloadError, TaskQueueError
from ..extension import Extension, overriding

_T = TypeVar("_T")
_MAIN = "__main__"
_COPY_OF_MAIN = "__mp_main__"  # multiprocessing uses this name for such a copy
_IN_CHILDREN = "attempt", "process", "step", "progressed"
"""The methods of an extension that are called where tasks run."""
_is_loading = False


class Functions(Protocol):
    """Task functions by name: ``functions.Registry``, or a provider of your own.

    A child process imports a provider, which must be at the top of a module. The functions that it finds may be
    anywhere, and may be loaded at their first use.

    If a provider is not at the top of a module, a child finds each of its functions there instead. Such a provider may
    have an attribute ``wrapper``: a factory and a function or None, both at the top of a module, and a JSON value. A
    child calls the factory with the other two, calls what that returns with each task function, and runs what it gets.
    A task function with a true attribute ``ends_with_process`` is not retried if the child process itself ends. A
    provider whose functions grow has a true attribute ``may_grow``: then no row says which functions its worker knows.
    """

    def find(self, name: str) -> Callable[..., Any] | None:
        """Return the function of that name, or None."""

    def names(self) -> list[str]:
        """Return the names of all functions."""


class Lookup:
    """The code that a worker runs: for a task that names a function, that function; for other tasks, the callback.

    ``extensions`` are entered around the code. ``coders`` code the calls of functions that no ``@queue.task`` has
    registered, such as those of a provider. ``owner`` is the ``TaskQueue`` that uses both: a child process finds them
    through it if they are not at the top of a module themselves.
    """

    def __init__(
        self,
        callback: Callable[[JSON], Any] | None,
        functions: Functions,
        extensions: Sequence[Extension] = (),
        owner: object = None,
        coders: Sequence[Coder] = (),
    ) -> None:
        self.extensions = extensions
        self._coders = coders
        self._codings: dict[str, CallCoding] = {}
        self._callback = callback
        self._functions = functions
        self._owner = owner
        self._known_to_children: frozenset[str] | None = None
        self._script: tuple[str, str] | None = None

    def find(self, record: TaskRecord) -> Callable[..., Any] | None:
        """Return the code that would run the task, or None."""
        return self._callback if record.function is None else self._function(record.function)

    def _function(self, name: str) -> Callable[..., Any] | None:
        found = self._functions.find(name)
        if found is None and name.startswith(f"{_MAIN}."):  # 0.1.0 stored such names for the functions of a script
            found = self._functions.find(f"{_name_of_main(vars(sys.modules[_MAIN]))}{name.removeprefix(_MAIN)}")
        return found

    def has(self, record: TaskRecord) -> bool:
        """Return whether the task can be run. A child process may still fail to find a function that is known here."""
        return bool(record.command) or self.find(record) is not None

    @property
    def may_grow(self) -> bool:
        """Whether more functions may be found later."""
        return bool(getattr(self._functions, "may_grow", False))

    def runs(self) -> list[str | None]:
        """Return the values of a task's ``function`` that can be run: names of functions, None for the callback."""
        return [*([] if self._callback is None else [None]), *self._functions.names()]

    def call(self, record: TaskRecord, results: Mapping[str, JSON] | None = None) -> Any:
        """Call the task's code and return its result. For an ``async def``, that is an awaitable.

        ``results``: results of parents, by their places in the payload.
        """
        value = payload.decode(record.payload)  # type: ignore[arg-type]
        if results:
            payload.fill_in(value, results)
        found = self.find(record)
        if found is None:
            raise TaskQueueError(self._why_not(record.function))
        if record.function is None:
            return found(value)
        return call(found, record.function, value, self._coding(found, record.function))

    def encode_result(self, record: TaskRecord, result: Any, limit: int) -> str:
        """Return the result of a task as JSON text of at most ``limit`` bytes. Raises PayloadError."""
        name = record.function
        if name is None or (found := self._function(name)) is None:
            return payload.encode(result, limit=limit, name="result")
        coding = self._coding(found, name)
        value = result if coding is None else coding.encode_result(result)
        try:
            return payload.encode(value, limit=limit, name="result")
        except PayloadError as error:
            raise explained_result(error, found, name, coding is not None, value) from None

    def _coding(self, found: Callable[..., Any], name: str) -> CallCoding | None:
        """Return how the calls of a function are coded: a task function by the coders of its own queue."""
        coding = getattr(found, "coding", self)
        if coding is None or isinstance(coding, CallCoding):
            return coding
        if not self._coders:
            return None
        known = self._codings.get(name)
        if known is None or not known.is_of(found):
            known = self._codings[name] = CallCoding(found, name, self._coders)
        return known

    def _why_not(self, name: str | None) -> str:
        if name is None:
            return "this worker has no callback, and the task names no task function"
        known = ", ".join(self._functions.names()) or "none"
        return f"this worker knows no task function {name!r}; it knows: {known}"

    def origin(self) -> Origin:
        """Return where a child process finds this code.

        Raises TypeError for a callback or an extension that a child could not find. For such a function, its tasks
        fail.
        """
        if _is_loading:
            raise RuntimeError(
                "a worker with executor='process' was started while its script was imported for the children: keep"
                ' definitions at the top of the script, and put the code that runs under: if __name__ == "__main__":'
            )
        callback = None
        if self._callback is not None:
            callback = refer(self._callback)
            if callback is None:
                raise TypeError(
                    "a child process cannot find the callback: it must be a function at the top of a module or script,"
                    " not a lambda, a nested function or something made at run time"
                )
        provider, functions, needs_coders = refer(self._functions), {}, True
        if provider is None:
            found = {name: self._functions.find(name) for name in self._functions.names()}
            functions = {name: _place_of(function) for name, function in found.items() if function is not None}
            needs_coders = any(
                place is not None and found_at(*place) is not found[name] for name, place in functions.items()
            )
            self._known_to_children = frozenset(functions)
            self._script = _script()  # now, since Python forgets it at the end of the script
        extensions, coders = self._extension_places(), self._coder_places(needs_coders)
        factory, argument, value = getattr(self._functions, "wrapper", None) or (None, None, None)
        wrapper = None if factory is None else (refer(factory), None if argument is None else refer(argument), value)
        main = _main_of([callback, provider, *functions.values(), *extensions, *coders, *(wrapper or ())[:2]])
        return Origin(callback, functions, main, provider, extensions, wrapper, coders)

    def late(self, record: TaskRecord) -> Late | None:
        """Return where a child finds the task's function if it was registered after ``origin`` was called."""
        known, name = self._known_to_children, record.function
        if known is None or name is None or name in known:
            return None
        found = self._functions.find(name)
        place = None if found is None else _place_of(found)
        return None if place is None else Late(name, place, self._script if place[0] == _MAIN else None)

    def learn(self, late: Late) -> None:
        """In a child process or a fork server: find a function that was registered later."""
        if isinstance(self._functions, FoundFunctions) and late.name not in self._functions.names():
            if late.main is not None and _COPY_OF_MAIN not in sys.modules:
                _load_main(*late.main)
            self._functions.add(late.name, _resolve(*late.place))

    def _owner_place(self) -> tuple[str, str] | None:
        """Return where a child process finds the owner, or a queue that shares its extensions.

        That is a lane, or the ``AsyncTaskQueue`` of a ``TaskQueue``.
        """
        return refer(self._owner) or _find(
            lambda value: _has_extensions(value) and value.extensions is self.extensions, type(self._owner)
        )

    def _coder_places(self, needed: bool) -> list[tuple[str, str]]:
        """Return where a child process finds the coders, for functions that are not task functions there."""
        owner = self._owner_place() if self._owner is not None and self._coders else None
        places = []
        for index, coder in enumerate(self._coders):
            place = refer(coder)
            if place is None and owner is not None:
                place = owner[0], f"{owner[1]}.coders.{index}"
            if not needed and (place is None or place[0] == _MAIN):  # the script need not be loaded for them
                return []
            if place is None:
                raise TypeError(
                    f"a child process cannot find the coder {type(coder).__qualname__}: assign it, or the TaskQueue"
                    " that uses it, to a name at the top of a module"
                )
            places.append(place)
        return places

    def _extension_places(self) -> list[tuple[str, str]]:
        """Return where a child process finds the extensions that it enters."""
        entered = [each for method in _IN_CHILDREN for each in overriding(self.extensions, method)]
        owner = self._owner_place() if self._owner is not None and entered else None
        places = []
        for index, extension in enumerate(self.extensions):
            if extension not in entered:
                continue
            place = refer(extension)
            if place is None and owner is not None:
                place = owner[0], f"{owner[1]}.extensions.{index}"
            if place is None:
                raise TypeError(
                    f"a child process cannot find the extension {type(extension).__qualname__}: assign it, or the"
                    " TaskQueue that uses it, to a name at the top of a module"
                )
            places.append(place)
        return places


def _has_extensions(value: object) -> bool:
    """Return whether an object is a queue, without asking objects that load something when an attribute is read."""
    return any(isinstance(vars(kind).get("extensions"), property) for kind in type(value).__mro__)


def call(function: Callable[..., Any], name: str, value: JSON, coding: CallCoding | None = None) -> Any:
    """Call a task function with the arguments in a payload.

    Raises PayloadError if it has none, or if one does not fit its annotation.
    """
    if not isinstance(value, dict) or set(value) != {"args", "kwargs"}:
        raise PayloadError(f"payload: not a call of {name}: args and kwargs are missing")
    args, kwargs = value["args"], value["kwargs"]
    if coding is not None:
        args, kwargs = coding.decode(args, kwargs)
    return function(*args, **kwargs)


def module_of(function: Callable[..., Any]) -> str:
    """Return the name of the module that other programs import to get the function.

    For a function of the script that is running, this is the name of its file (``app`` for ``python app.py``) or of
    its module (``pkg.app`` for ``python -m pkg.app``). It is ``__main__`` only if there is no file: at the prompt
    and with ``python -c``.
    """
    if function.__module__ not in (_MAIN, _COPY_OF_MAIN):
        return function.__module__
    # the function's own namespace: a profiler runs a script in one that is not sys.modules["__main__"]
    return _name_of_main(getattr(inspect.unwrap(function), "__globals__", vars(sys.modules[_MAIN])))


def _name_of_main(namespace: Mapping[str, Any]) -> str:
    spec, file = namespace.get("__spec__"), namespace.get("__file__")
    if spec is not None and spec.name != _MAIN:
        return str(spec.name)
    return Path(file).stem if file and not file.startswith("<") else _MAIN  # "<stdin>" is not a file


# -- finding the code in another process -----------------------------------------------------------


class Origin(NamedTuple):
    """Where a child process finds the code: module and path of the callback and of each function.

    A function that cannot be found is None. ``main`` says how to load the script that is running, if it is needed:
    "module" or "file", and its name. ``provider`` has ``find`` and ``names``, and replaces ``functions``.
    ``wrapper`` is that of ``Functions``, with places.
    """

    callback: tuple[str, str] | None
    functions: Mapping[str, tuple[str, str] | None]
    main: tuple[str, str] | None
    provider: tuple[str, str] | None = None
    extensions: Sequence[tuple[str, str]] = ()
    wrapper: tuple[tuple[str, str] | None, tuple[str, str] | None, JSON] | None = None
    coders: Sequence[tuple[str, str]] = ()


class Late(NamedTuple):
    """Where a child process finds a function that was registered after its fork server had started: see Origin."""

    name: str
    place: tuple[str, str]
    main: tuple[str, str] | None = None


class FoundFunctions:
    """The task functions in a child process, which has found them by their modules and names."""

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any] | None],
        wrap: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function,
    ) -> None:
        self._wrap = wrap
        self._functions = {name: None if one is None else wrap(one) for name, one in functions.items()}

    def add(self, name: str, function: Callable[..., Any]) -> None:
        """Add a function that was registered later."""
        self._functions[name] = self._wrap(function)

    def find(self, name: str) -> Callable[..., Any] | None:
        """See Functions. Raises TaskQueueError for a function that this process could not find."""
        if name in self._functions and self._functions[name] is None:
            raise TaskQueueError(
                f"a child process cannot find the task function {name!r}: it must be defined at the top of a module"
            )
        return self._functions.get(name)

    def names(self) -> list[str]:
        """See Functions."""
        return sorted(self._functions)


def import_path() -> list[str]:
    """``sys.path`` for another process, without entries that Python ignores, such as a ``Path``."""
    return [entry for entry in sys.path if isinstance(entry, str)]


def load(origin: Origin) -> Lookup:
    """Find the code in this process and return it. Raises what importing its modules raises."""
    if origin.main is not None:
        _load_main(*origin.main)
    callback = None if origin.callback is None else _resolve(*origin.callback)
    extensions = [_resolve_as(Extension, "an extension", *place) for place in origin.extensions]
    coders = [_resolve_as(Coder, "a coder", *place) for place in origin.coders]
    if origin.provider is not None:
        return Lookup(callback, _resolve(*origin.provider), extensions, coders=coders)
    functions = {name: None if place is None else _resolve(*place) for name, place in origin.functions.items()}
    if origin.wrapper is None:
        return Lookup(callback, FoundFunctions(functions), extensions, coders=coders)
    factory, argument, value = origin.wrapper
    assert factory is not None
    wrap = _resolve(*factory)(None if argument is None else _resolve(*argument), value)
    return Lookup(callback, FoundFunctions(functions, wrap), extensions, coders=coders)


def _resolve_as(kind: type[_T], what: str, module: str, path: str) -> _T:
    try:
        found = _resolve(module, path)
    except (AttributeError, IndexError):
        found = None
    if not isinstance(found, kind):
        raise TaskQueueError(
            f"{path} of {module} is not {what} in a child process: create it when its module is imported"
        )
    return found


def place_of(error: BaseException) -> str:
    """Return where in the user's file an import failed, to append to the error. A SyntaxError contains the place."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) or len(frames) < 2:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def refer(code: object) -> tuple[str, str] | None:
    """Return the module and the path in it by which another process finds an object; None if there are none."""
    inner = getattr(code, "__wrapped__", code)
    for one in (code, inner):
        module, path = getattr(one, "__module__", None), getattr(one, "__qualname__", None)
        if isinstance(module, str) and isinstance(path, str) and _is_there(module, path, code, inner):
            return module, path
    return _search(code) or (None if inner is code else _search(inner))


def _place_of(function: Callable[..., Any]) -> tuple[str, str] | None:
    """Return where another process finds a function; None if it does not.

    Of a task function it must be the same one, with its own backoff and coders. If there is one of an
    ``AsyncTaskQueue``, or one that was registered above it for another queue, the path leads through that.
    """
    place = refer(function)
    if place is None:
        return None
    (module, path), found = place, found_at(*place)
    while found is not function:
        step = getattr(type(found), "_inner", None)  # of the type, since some objects have every attribute
        if step is None:
            return place
        found, path = getattr(found, step), f"{path}.{step}"
    return module, path


def found_at(module: str, path: str) -> Any:
    """Return what another process finds at the place that ``refer`` has returned."""
    return _walk(sys.modules[module], path)


def _is_there(module: str, path: str, *wanted: object) -> bool:
    try:
        found = found_at(module, path)
    except (KeyError, AttributeError):
        return False
    return any(found is one or getattr(found, "__wrapped__", found) is one for one in wanted)


def _search(code: object) -> tuple[str, str] | None:
    """Find an object, or the object of a method, at the top of a module."""
    owner, suffix = (code.__self__, f".{code.__name__}") if isinstance(code, types.MethodType) else (code, "")
    found = _find(lambda value: value is owner, type(owner))
    return None if found is None else (found[0], found[1] + suffix)


def _find(is_wanted: Callable[[Any], bool], kind: type) -> tuple[str, str] | None:
    """Return the first wanted object at the top of a module. The module of ``kind`` is searched first."""
    for name in dict.fromkeys((kind.__module__, _MAIN, *sys.modules)):
        module = sys.modules.get(name)
        if not isinstance(module, types.ModuleType) or name == _COPY_OF_MAIN:
            continue
        for path, value in list(vars(module).items()):
            if is_wanted(value):
                return name, path
    return None


def _walk(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = root[int(name)] if name.isdigit() else getattr(root, name)
    return root


def _resolve(module: str, path: str) -> Any:
    return _walk(importlib.import_module(module), path)


def _main_of(places: Sequence[tuple[str, str] | None]) -> tuple[str, str] | None:
    """Return how to load the running script again, if anything is defined in it."""
    if not any(place is not None and place[0] == _MAIN for place in places):
        return None
    if (script := _script()) is None:
        raise TypeError(
            "executor='process' needs the task's code in a file: a child process cannot see what was typed in or"
            " given to python -c"
        )
    return script


def _script() -> tuple[str, str] | None:
    """Return how to load the running script again; None if it is not in a file."""
    main = sys.modules[_MAIN]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return "module", spec.name
    path = getattr(main, "__file__", None)
    return None if path is None else ("file", path)


def _load_main(kind: str, where: str) -> None:
    """Run the script's definitions under another name: what is under ``if __name__ == "__main__":`` is not run."""
    global _is_loading
    _is_loading = True
    try:
        found = _run_definitions(kind, where)
    finally:
        _is_loading = False
    module = types.ModuleType(_COPY_OF_MAIN)
    module.__dict__.update(found)
    sys.modules[_MAIN] = sys.modules[_COPY_OF_MAIN] = module


def _run_definitions(kind: str, where: str) -> dict[str, Any]:
    if kind == "module":
        return runpy.run_module(where, run_name=_COPY_OF_MAIN, alter_sys=True)
    return runpy.run_path(where, run_name=_COPY_OF_MAIN)
