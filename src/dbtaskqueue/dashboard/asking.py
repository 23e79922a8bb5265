"""The questions before an action: what it will do, what it needs to know, a button that acts and one that does not.

A question is a page of its own, and works without JavaScript. With it, the same question is shown in a dialog: the
script asks for the page with ``?part=1``, which is the form alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from starlette.responses import Response

from .._store.contract import TaskRecord
from ..schedules import find_schedule
from ..states import FINAL, PENDING, RUNNING, TaskState, sources
from ..task import look_up
from .auth import Refused
from .call import Call
from .opening import is_own_path
from .params import BadQuery


class Input(NamedTuple):
    """A field of a question. ``kind``: text, check or hidden."""

    name: str
    label: str = ""
    value: str = ""
    kind: str = "text"
    hint: str = ""
    is_checked: bool = False


class Question(NamedTuple):
    """What is asked before an action.

    ``act``: the text of the button that acts; ``keep``: that of the other one, which begins with "Keep", "Close" or "Go
    back". ``path`` and ``query``: where the answer is sent. ``back``: the page to which both lead.
    """

    title: str
    text: str
    act: str
    keep: str
    path: str
    back: str
    query: Mapping[str, str] = {}
    inputs: Sequence[Input] = ()
    is_danger: bool = False


def confirm(call: Call) -> Response:
    """Ask before the action of this path."""
    ask = _QUESTIONS.get(re.sub(r"/\d+", "/{id}", call.path))
    if ask is None:
        raise Refused(404, "there is no such page")
    question = ask(call)
    call.query.text("back")
    call.query.done()
    return shown(call, question)


def shown(call: Call, question: Question, status: int = 200, error: str = "") -> Response:
    """Return the page of a question, or the form alone, for a dialog."""
    is_dialog = call.query.text("part") is not None
    wanted = call.query.text("back") or call.form.get("back")
    back = str(wanted) if is_own_path(wanted) else question.back
    layout = "dialog.html" if is_dialog else "base.html"
    return call.page("ask.html", status, q=question, back=back, is_dialog=is_dialog, layout=layout, error=error)


# -- one task --------------------------------------------------------------------------------------


def _task_question(
    verb: str, act: str, text: Callable[[TaskRecord], str], *inputs: Input, is_danger: bool = False
) -> Callable[[Call], Question]:
    def ask(call: Call) -> Question:
        record = look_up(call.queue.store, call.id)
        path = f"/tasks/{call.id}"
        title = f"{verb.capitalize()} task {call.id}?"
        return Question(
            title, text(record), act, "Keep it as it is", f"{path}/{verb}", path, {}, inputs, is_danger=is_danger
        )

    return ask


def _cancel_text(record: TaskRecord) -> str:
    if record.state == RUNNING:
        return "Its cancellation is requested. A task in a process is stopped within seconds. Its output is kept."
    if record.state in FINAL:
        return f"It is {record.state} already, so there is nothing to cancel."
    return "It will not run, unless someone retries it."


def _retry_text(record: TaskRecord) -> str:
    if record.state not in sources("retry"):
        return f"It is {record.state}, so it cannot be retried now."
    again = " It was done, so what it did is done again." if record.state == TaskState.DONE else ""
    return f"It is due now, with its original number of attempts.{again}"


def _reschedule_text(record: TaskRecord) -> str:
    if record.state not in (PENDING, TaskState.FAILED):
        return f"It is {record.state}; only a task that waits can be rescheduled."
    return "Only what you fill in changes."


RESCHEDULE = (
    Input("start_in", "Start in", hint="Such as 0s for now, 15m, 2h or 1d."),
    Input("priority", "Priority", hint="From -32768 to 32767; higher ones run first."),
    Input("queue", "Queue", hint="Another queue to move it to."),
)


# -- a queue and a schedule ------------------------------------------------------------------------


def _queue_question(
    verb: str, act: str, text: str, *inputs: Input, is_danger: bool = False
) -> Callable[[Call], Question]:
    def ask(call: Call) -> Question:
        name = call.query.name()
        query = {"name": name}
        title = f"{verb.capitalize()} queue {name}?"
        return Question(
            title,
            text,
            act,
            "Keep it as it is",
            f"/queue/{verb}",
            _own(call, "/queue", query),
            query,
            inputs,
            is_danger=is_danger,
        )

    return ask


def _schedule_question(verb: str, act: str, text: str) -> Callable[[Call], Question]:
    def ask(call: Call) -> Question:
        queue, name = call.query.name("queue"), call.query.name()
        find_schedule(call.queue.store, queue, name)
        query = {"queue": queue, "name": name}
        title = f"{verb.capitalize()} {name}{' now' if verb == 'run' else ''}?"
        back = _own(call, "/schedule", query)
        return Question(title, text, act, "Keep it as it is", f"/schedule/{verb}", back, query)

    return ask


def _retention(call: Call) -> Question:
    """Ask what to prune in the background, with what is stored."""
    name = call.query.name()
    try:
        known = call.queue.lane(name).retention()
    except ValueError as error:
        raise BadQuery(f"name: {error}") from None
    ages = {"done": known.done, "cancelled": known.cancelled, "abandoned": known.abandoned}
    inputs = [Input(state, f"Keep {state} tasks for", _age(age), hint="Empty: forever.") for state, age in ages.items()]
    inputs[0] = inputs[0]._replace(hint="Such as 12h or 30d. Empty: forever.")
    most = "" if known.most is None else str(known.most)
    inputs.append(Input("most", "Keep at most", most, hint="Tasks that have ended. Empty: any number."))
    text = "Tasks that have ended are deleted in the background. Unfinished tasks are never deleted."
    path, query = "/queue/retention", {"name": name}
    back = _own(call, "/queue", query)
    return Question(f"Retention of queue {name}", text, "Save", "Keep it as it is", path, back, query, inputs)


def _age(seconds: float | None) -> str:
    """Return a duration as one would write it in a form."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:g}s"


def _own(call: Call, path: str, query: Mapping[str, str]) -> str:
    """Return the path of a page, without the prefix under which the dashboard is mounted."""
    return call.url(path, **query)[len(call.url("")) :]


_PURGE = Input("queue_name", "Name of the queue", hint="Write it to confirm.")
_PRUNE = (
    Input("older_than", "Ended longer ago than", "30d", hint="Such as 12h, 30d or 0s for all."),
    *(Input("states", state.capitalize(), state, "check", is_checked=state != "abandoned") for state in sorted(FINAL)),
)

_QUESTIONS: dict[str, Callable[[Call], Question]] = {
    "/tasks/{id}/cancel": _task_question("cancel", "Cancel task", _cancel_text, is_danger=True),
    "/tasks/{id}/retry": _task_question("retry", "Retry task", _retry_text),
    "/tasks/{id}/suspend": _task_question(
        "suspend", "Suspend task", lambda _: "Its processes stop within 2 seconds. It keeps its slot and its memory."
    ),
    "/tasks/{id}/continue": _task_question("continue", "Continue task", lambda _: "Its processes continue."),
    "/tasks/{id}/reschedule": _task_question("reschedule", "Reschedule task", _reschedule_text, *RESCHEDULE),
    "/tasks/{id}/delete": _task_question(
        "delete", "Delete task", lambda _: "Its payload, result, attempts and output are deleted.", is_danger=True
    ),
    "/queue/pause": _queue_question("pause", "Pause queue", "No task of it starts. Running tasks continue."),
    "/queue/resume": _queue_question("resume", "Resume queue", "Its tasks start again."),
    "/queue/purge": _queue_question(
        "purge", "Purge queue", "All its unfinished tasks are abandoned, also running ones.", _PURGE, is_danger=True
    ),
    "/queue/prune": _queue_question(
        "prune", "Prune queue", "Tasks that ended some time ago are deleted.", *_PRUNE, is_danger=True
    ),
    "/queue/retention": _retention,
    "/schedule/run": _schedule_question("run", "Run now", "It enqueues one task now. Its times stay as they are."),
    "/schedule/pause": _schedule_question("pause", "Pause schedule", "It enqueues no tasks until it is resumed."),
    "/schedule/resume": _schedule_question("resume", "Resume schedule", "It enqueues tasks again at its times."),
}
