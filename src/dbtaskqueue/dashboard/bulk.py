"""Acting on many tasks: those that are chosen in a list, or all that match filters.

All that match is an operation: it is stored, carried out in steps, and continued by another dashboard if this one ends.
A few chosen tasks are done at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.responses import Response

from .._formats import words
from .._formats.filters import Filters, parse
from .._store.contract import BulkVerb, Store
from .._system import clock
from ..bulk import Bulk
from ..checks import counted, listed
from ..finding import request_for
from ..operations import create_operation
from ..operations import stop_operation as stop
from ..queue import TaskQueue
from . import fields
from .acting import actor, answer, ready
from .asking import RESCHEDULE, Input, Question, shown
from .auth import Refused, Role
from .call import Call
from .data import trail
from .fields import BadField, as_bad_form
from .params import BadForm, Form

VERBS: Mapping[BulkVerb, Role] = {"cancel": "operate", "retry": "operate", "reschedule": "operate", "delete": "admin"}
"""What an operation can do, and the role that it needs."""
_MOST_CHOSEN = 500
_WHERE = "where."
_COUNTED = 100_000
_COUNTING = 1.0
"""Seconds for which a question counts the tasks that match."""


class Wanted(NamedTuple):
    """What to do with which tasks.

    ``chosen``: the ids of chosen tasks; None: all that match. ``highest``: the newest task when it was asked.
    """

    verb: BulkVerb
    filters: Filters
    options: dict[str, Any]
    chosen: list[int] | None = None
    highest: int | None = None


# -- reading ---------------------------------------------------------------------------------------


def _verb(call: Call) -> BulkVerb:
    """Return the verb, if this user may use it."""
    given = call.form.get("verb")
    verb = next((each for each in VERBS if each == given), None)
    if verb is None:
        raise BadField("verb", f"must be one of {', '.join(VERBS)}")
    check_role(call, verb)
    return verb


def check_role(call: Call, verb: BulkVerb) -> None:
    """Refuse a user who may not use the verb of an operation."""
    role = VERBS[verb]
    if not call.may(role):
        raise Refused(403, f"{verb} needs the role {role}; {call.user.name} has the role {call.user.role}")


def _options(form: Form, verb: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if verb == "retry":
        found["spread"] = fields.seconds(form, "spread")
    if verb == "reschedule":
        found["start_in"] = fields.seconds(form, "start_in")
        found["priority"] = fields.number(form, "priority", -32768, 32767)
        found["queue"] = fields.text(form, "queue")
    return {name: value for name, value in found.items() if value is not None}


def _filters(where: Mapping[str, Any]) -> Filters:
    """Return the filters of an operation, with relative times fixed now."""
    try:
        found = parse(where, clock.now())
    except ValueError as error:
        raise BadField("where", f"is not valid: {error}") from None
    if not found:
        raise BadField("where", "has no filter: an operation never means all tasks of the database")
    return found


def _of_program(call: Call) -> Wanted:
    verb = _verb(call)
    where = fields.mapping(call.form, "where")
    call.refuse_hidden(where)
    return Wanted(verb, _filters(where), _options(call.form, verb))


def _of_form(call: Call) -> Wanted:
    """Return what a list of tasks sends: ids, or all that match its filters, in fields named ``where.NAME``."""
    verb, form = _verb(call), call.form
    chosen = _texts(form.get("id"))
    pairs = [
        (name.removeprefix(_WHERE), each)
        for name in form.values
        if name.startswith(_WHERE)
        for each in _texts(form.get(name))
    ]
    if fields.flag(form, "all"):
        try:
            where = words.from_pairs(pairs)
        except ValueError as error:
            raise BadForm(str(error)) from None
        call.refuse_hidden(where)
        return Wanted(verb, _filters(where), _options(form, verb), highest=fields.number(form, "highest"))
    if not chosen:
        raise BadForm("choose some tasks first, or all that match")
    if len(chosen) > _MOST_CHOSEN:
        raise BadForm(f"at most {_MOST_CHOSEN} tasks can be chosen one by one: choose all that match")
    ids = [fields.number(Form({"id": each}), "id", 1) or 0 for each in dict.fromkeys(chosen)]
    return Wanted(verb, _filters({"id": ids}), _options(form, verb), ids)


def _texts(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    return [each for each in found if isinstance(each, str)]


# -- acting ----------------------------------------------------------------------------------------


def start_operation(call: Call) -> Response:
    """Act on all tasks that match, or on chosen ones. A form is asked first, unless it says that it was."""
    if call.via == "api":
        wanted = _of_program(call)
        ready(call)
        return _started(call, wanted)
    wanted, is_confirmed = _of_form(call), fields.flag(call.form, "confirmed")
    if not is_confirmed:
        return shown(call, _question(call, wanted))
    ready(call)
    return _started(call, wanted) if wanted.chosen is None else _act(call, wanted, wanted.chosen)


def _started(call: Call, wanted: Wanted) -> Response:
    """Store an operation, and let this dashboard carry it out."""
    store = call.queue.store
    with as_bad_form():
        id = create_operation(store, wanted.verb, wanted.filters, wanted.options, actor(call), highest=wanted.highest)
    call.dashboard.wake_operations(at_once=True)
    text = f"Operation {id} has started."
    return answer(call, text, f"/operations/{id}", lambda: trail.value(store, id), 202, goes_back=False)


def stop_operation(call: Call) -> Response:
    """Stop an operation between two steps."""
    ready(call)
    store, id = call.queue.store, call.id
    operation = trail.operation(store, id)
    check_role(call, operation.verb)
    if not stop(store, id, actor(call)):
        raise Refused(409, f"operation {id} is {trail.operation(store, id).state}", name="InvalidTransition")
    return answer(call, f"Operation {id} is stopped.", f"/operations/{id}", lambda: trail.value(store, id))


def _act(call: Call, wanted: Wanted, ids: list[int]) -> Response:
    """Act on chosen tasks now."""
    act = _MANY[wanted.verb]
    options = {f"to_{name}" if name in ("priority", "queue") else name: value for name, value in wanted.options.items()}
    with as_bad_form():
        found = act(call.queue, all_queues=True, actor=actor(call), id=ids, **options)
    reasons = ", ".join(f"{counted(number)}: {reason}" for reason, number in found.refused.items())
    refused = f" Refused {reasons}." if reasons else ""
    if not found.changed:
        raise Refused(409, f"No task was {_DONE[wanted.verb]}.{refused or ' None of them exists any more.'}")
    return answer(call, f"{_DONE[wanted.verb].capitalize()}: {counted(found.changed)}.{refused}", "/tasks", dict)


_MANY: Mapping[str, Callable[..., Bulk]] = {
    "cancel": TaskQueue.cancel_many,
    "retry": TaskQueue.retry_many,
    "reschedule": TaskQueue.reschedule_many,
    "delete": TaskQueue.delete_many,
}
_DONE = {"cancel": "cancelled", "retry": "retried", "reschedule": "rescheduled", "delete": "deleted"}


# -- asking ----------------------------------------------------------------------------------------


def _question(call: Call, wanted: Wanted) -> Question:
    hidden = [("verb", wanted.verb), ("confirmed", "1")]
    if wanted.chosen is None:
        count, is_all = count_of(call.queue.store, wanted.filters)
        number = counted(count) if is_all else f"at least {counted(count)}"
        text = (
            f"They match {words.to_words(wanted.filters)}. It runs in steps, and you can close this page."
            " Tasks that are enqueued later are left alone."
        )
        newest = call.queue.store.newest()
        hidden += [
            ("all", "1"),
            ("highest", str(newest[0] if newest else 0)),
            *((f"{_WHERE}{name}", value) for name, value in wanted.filters.pairs()),
        ]
    else:
        count, number = len(wanted.chosen), counted(len(wanted.chosen))
        text = f"{'Task' if count == 1 else 'Tasks'} {listed([str(id) for id in sorted(wanted.chosen)])}."
        hidden += [("id", str(id)) for id in wanted.chosen]
    return Question(
        f"{wanted.verb.capitalize()} {number}?",
        text,
        f"{wanted.verb.capitalize()} tasks",
        "Keep them as they are",
        "/operations",
        "/tasks",
        inputs=[*(Input(name, value=value, kind="hidden") for name, value in hidden), *_inputs(wanted)],
        is_danger=wanted.verb in ("cancel", "delete"),
    )


def count_of(store: Store, filters: Filters) -> tuple[int, bool]:
    """Count the tasks that match, for at most a second; return the number, and whether these are all."""
    until, count = time.monotonic() + _COUNTING, 0
    request = request_for(store, filters, limit=_COUNTED)
    while True:
        page = store.search_ids(request)
        count += len(page.ids)
        if page.next is None:
            return count, True
        if count >= _COUNTED or time.monotonic() >= until:
            return count, False
        request = request._replace(cursor=page.next, limit=_COUNTED - count)


def _inputs(wanted: Wanted) -> tuple[Input, ...]:
    if wanted.verb == "reschedule":
        return RESCHEDULE
    return _SPREAD if wanted.verb == "retry" and wanted.chosen is None else ()


_SPREAD = (Input("spread", "Spread over", hint="Such as 10m, so that they do not all start now. Empty: now."),)
