"""Enqueueing a task: the form, a copy of a task, and what programs send."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from .._executors.lookup import Functions
from .._formats.payload import JSON
from .._store.contract import Store
from ..calls import Command, Target, TaskCall
from ..checks import check_function
from ..errors import PayloadError
from ..functions import TaskFunction
from ..monitoring.tasks import readable
from ..options import Options
from ..queue import TaskQueue
from ..task import Task, look_up
from . import fields
from .acting import actor, ready, task_answer
from .auth import Refused
from .call import Call
from .fields import BadField, as_bad_form
from .params import BadForm, Form

FIELDS = ("queue", "function", "arguments", "payload", "command", "priority", "start_in", "max_attempts", "key")
"""The fields of the form."""
_LINE = 70
"""Characters of JSON that stay on one line."""


# -- the form --------------------------------------------------------------------------------------


def enqueue_page(call: Call) -> Response:
    """Show the form: empty, or filled with a copy of a task."""
    id = call.query.number("copy")
    queue = call.query.text("queue", "")
    function = call.query.text("function", "")
    call.query.done()
    values = dict.fromkeys(FIELDS, "") | {"queue": queue, "function": function}
    if id is not None:
        values |= copy_of(call.queue.store, id, hides_payload="payload" in call.dashboard.hidden)
    return _form(call, 200, values, copy=id)


def copy_of(store: Store, id: int, *, hides_payload: bool) -> dict[str, str]:
    """Return the fields of the form for another task like this one, without its key: that is for one task only."""
    record = look_up(store, id)
    task = Task(store, record)
    value = None if hides_payload else readable(task, "payload")
    found = {"queue": task.queue, "function": task.function or "", "priority": str(task.priority or "")}
    found["max_attempts"] = "" if record.budget is None else str(record.budget)
    if task.is_command:
        argv = value.get("argv") if isinstance(value, dict) else None
        return found | {"command": shlex.join(map(str, argv)) if isinstance(argv, list) else ""}
    field = "payload" if task.function is None else "arguments"
    return found | {field: "" if hides_payload else _as_text(value, task.function)}


def _as_text(value: JSON, function: str | None) -> str:
    """Return a payload as people write it in the form: of a call only the arguments, if they are of one kind."""
    if function is not None and isinstance(value, dict) and value.keys() == {"args", "kwargs"}:
        args, kwargs = value["args"], value["kwargs"]
        if not kwargs:
            value = args
        elif not args and isinstance(kwargs, dict) and kwargs.keys() != {"args", "kwargs"}:
            value = kwargs
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= _LINE else json.dumps(value, ensure_ascii=False, indent=2)


def _form(
    call: Call, status: int, values: Mapping[str, object], copy: int | None = None, error: BadForm | None = None
) -> Response:
    field = error.field if isinstance(error, BadField) and error.field in FIELDS else None
    return call.page(
        "enqueue.html",
        status,
        values=values,
        copy=copy,
        error=None if error is None else str(error),
        errors={} if field is None else {field: error.reason},  # type: ignore[union-attr]
        allow_commands=call.dashboard.allow_commands,
        hides_payload="payload" in call.dashboard.hidden and copy is not None,
    )


# -- storing ---------------------------------------------------------------------------------------


def enqueue(call: Call) -> Response:
    """Store a task. A form with a mistake is shown again, with the mistake at its place."""
    if call.via == "api":
        return _enqueue(call, _target_of(call.form, call.dashboard.allow_commands))
    try:
        return _enqueue(call, _target_of_form(call.form, call.dashboard.allow_commands))
    except (BadForm, PayloadError) as error:
        values = {name: call.form.get(name, "") for name in FIELDS}
        shown = error if isinstance(error, BadForm) else BadField("payload", str(error))
        return _form(call, 422, values, error=shown)


def _enqueue(call: Call, target: Target) -> Response:
    lane = _lane(call.form, call.queue)
    options = _options(call.form)
    if isinstance(target, TaskCall):
        written_in = "arguments" if fields.given(call.form, "payload") is None else "payload"
        _check_arguments(target, lane.functions, "args" if call.via == "api" else written_in)
    ready(call)
    with as_bad_form():
        task = lane.enqueue_by(actor(call), target, options)
    if task.deduplicated:
        text, status = f"Task {task.id} has the key {task.key!r} already. Nothing was enqueued.", 200
    else:
        text, status = f"Task {task.id} is enqueued.", 201
    return task_answer(call, text, task.id, status)


def _lane(form: Form, queue: TaskQueue) -> TaskQueue:
    name = fields.text(form, "queue")
    try:
        return queue if name is None else queue.lane(name)
    except ValueError as error:
        raise BadField("queue", f"is not valid: {error}") from None


def _options(form: Form) -> Options:
    found: dict[str, Any] = {
        "priority": fields.number(form, "priority", -32768, 32767),
        "start_in": fields.seconds(form, "start_in"),
        "max_attempts": fields.number(form, "max_attempts", 1, 2**31 - 1),
        "key": fields.text(form, "key"),
    }
    return {name: value for name, value in found.items() if value is not None}  # type: ignore[return-value]


def _target_of(form: Form, allow_commands: bool) -> Target:
    """Return what a program wants to enqueue."""
    kinds = [name for name in ("payload", "function", "command") if name in form.values]
    if len(kinds) != 1:
        raise BadForm(f"give one of payload, function and command, not {' and '.join(kinds) or 'none'}")
    if kinds == ["payload"]:
        value: JSON = form.get("payload")
        return value
    if kinds == ["command"]:
        return _command(form.get("command"), allow_commands)
    args = form.get("args")
    if args is not None and not isinstance(args, list):
        raise BadField("args", "must be a list")
    return _call(fields.text(form, "function"), args or [], fields.mapping(form, "kwargs"))


def _target_of_form(form: Form, allow_commands: bool) -> Target:
    """Return what a person wants to enqueue: a function with arguments, a payload, or a command line."""
    given = {name: fields.text(form, name) for name in ("function", "arguments", "payload", "command")}
    function, line = given["function"], given["command"]
    if line is not None:
        if any(value is not None for name, value in given.items() if name != "command"):
            raise BadField("command", "replaces the function, its arguments and the payload: leave these empty")
        return _command(_words(line), allow_commands)
    if function is None and given["arguments"] is not None:
        raise BadField("function", "is empty, but there are arguments")
    if function is not None and None not in (given["arguments"], given["payload"]):
        raise BadField("payload", "must be empty: a function gets the arguments")
    name = "payload" if given["arguments"] is None else "arguments"
    source = given[name]
    if function is None and source is None:
        raise BadField("payload", "is empty: write JSON, or null for none")
    value = None if source is None else fields.json_text(name, source)
    return value if function is None else _call(function, *_arguments(name, value))


def _arguments(name: str, value: JSON) -> tuple[list[JSON], Mapping[str, JSON]]:
    """Return the arguments of a call that a person has written: a list, an object, or both as they are stored."""
    if value is None or isinstance(value, list):
        return value or [], {}
    if not isinstance(value, dict):
        raise BadField(name, "must be a list, or an object of named arguments")
    if value.keys() == {"args", "kwargs"}:
        args, kwargs = value["args"], value["kwargs"]
        if isinstance(args, list) and isinstance(kwargs, dict):
            return args, kwargs
    return [], value


def _call(function: str | None, args: list[JSON], kwargs: Mapping[str, JSON]) -> TaskCall:
    try:
        return TaskCall(check_function(function or ""), args, kwargs, {}, {})
    except ValueError as error:
        raise BadField("function", f"is not valid: {error}") from None


def _check_arguments(target: TaskCall, functions: Functions, field: str) -> None:
    """Refuse arguments that the worker could not decode, if the function is registered in this program."""
    function = functions.find(target.function)
    if isinstance(function, TaskFunction):
        try:
            function.check_stored(target.args, target.kwargs)
        except (TypeError, PayloadError) as error:
            raise BadField(field, f"do not fit: {error}") from None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise BadField("command", f"cannot be read: {error}") from None


def _command(words: object, allow_commands: bool) -> Command:
    if not allow_commands:
        raise Refused(403, "command lines are not allowed here: start the dashboard with --allow-commands")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadField("command", "must be a list of texts: the program and its arguments")
    try:
        return Command(words)
    except (ValueError, TypeError) as error:
        raise BadField("command", f"cannot be run: {error}") from None
