"""What operators do with single tasks, queues and schedules: by a form, or by the API. Both call the same functions.

Each handler reads the body, acts, and answers: a program gets what is there afterwards, a browser goes to a page that
reports the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from ..audit import Actor, new_action
from ..checks import MOST, counted
from ..queue import TaskQueue
from ..schedules import as_schedule, find_schedule, run_now, set_paused
from ..states import FINAL, TaskState
from ..task import look_up
from . import fields
from .api import shapes
from .call import Call
from .fields import BadField, as_bad_form
from .messages import say
from .opening import is_own_path
from .params import BadForm, BadQuery

_LONGEST_NAME = 255


def answer(
    call: Call,
    text: str,
    to: str,
    value: Callable[[], object],
    status: int = 200,
    *,
    goes_back: bool = True,
    **query: object,
) -> Response:
    """Return the answer to an action: ``value()`` for a program; for a browser a way to a page that says ``text``.

    That page is the one from which the browser came, if the form says so and with ``goes_back``, or else ``to`` with
    ``query``.
    """
    call.dashboard.looks.forget_all()
    if call.via == "api":
        return call.json(value(), status)
    response = call.redirect(to, **query)
    back = call.form.get("back")
    if goes_back and is_own_path(back):
        response.headers["location"] = call.url("") + str(back)
    say(call, response, text)
    return response


def actor(call: Call) -> Actor:
    """Return who acts, for the audit log."""
    return Actor(call.user.name[:_LONGEST_NAME] or "(no name)", call.via)


def ready(call: Call) -> None:
    """Refuse what a handler has not read: other parameters, and other fields of the body."""
    call.form.get("back")
    call.query.done()
    call.form.done()


# -- one task --------------------------------------------------------------------------------------


def task_answer(call: Call, text: str, id: int, status: int = 200) -> Response:
    """Return the answer to what was done with a task that is still there."""

    def value() -> object:
        store = call.queue.store
        return shapes.whole(store, look_up(store, id), call.dashboard.hidden)

    return answer(call, text, f"/tasks/{id}", value, status)


def cancel(call: Call) -> Response:
    """Cancel a task, or request it while it runs."""
    running = fields.flag(call.form, "running", True)
    ready(call)
    is_cancelled = call.queue.cancel(call.id, running=running, actor=actor(call))
    became = "is cancelled" if is_cancelled else "was asked to stop"
    return task_answer(call, f"Task {call.id} {became}.", call.id)


def retry(call: Call) -> Response:
    """Run a task again."""
    ready(call)
    call.queue.retry(call.id, actor=actor(call))
    return task_answer(call, f"Task {call.id} will run again.", call.id)


def suspend(call: Call) -> Response:
    """Pause the processes of a task."""
    ready(call)
    call.queue.suspend(call.id, actor=actor(call))
    return task_answer(call, f"Task {call.id} is suspended: its processes stop within 2 seconds.", call.id)


def continue_(call: Call) -> Response:
    """Continue a suspended task."""
    ready(call)
    call.queue.continue_(call.id, actor=actor(call))
    return task_answer(call, f"Task {call.id} continues.", call.id)


def reschedule(call: Call) -> Response:
    """Change when a task is due, its priority or its queue."""
    start_in, priority = fields.seconds(call.form, "start_in"), fields.number(call.form, "priority", -32768, 32767)
    queue = fields.text(call.form, "queue")
    ready(call)
    with as_bad_form():
        call.queue.reschedule(call.id, start_in=start_in, priority=priority, queue=queue, actor=actor(call))
    return task_answer(call, f"Task {call.id} is rescheduled.", call.id)


def delete(call: Call) -> Response:
    """Delete a task that has ended."""
    ready(call)
    call.queue.delete(call.id, actor=actor(call))
    return answer(
        call, f"Task {call.id} is deleted.", "/tasks", lambda: {"id": call.id, "deleted": True}, goes_back=False
    )


# -- a queue ---------------------------------------------------------------------------------------


def _lane(call: Call) -> TaskQueue:
    name = call.query.name()
    try:
        return call.queue.lane(name)
    except ValueError as error:
        raise BadQuery(f"name: {error}") from None


def _queue_answer(call: Call, text: str, lane: TaskQueue, **more: object) -> Response:
    def value() -> object:
        return {"name": lane.name, "paused": call.queue.store.is_paused(lane.name), **more}

    return answer(call, text, "/queue", value, name=lane.name)


def pause_queue(call: Call) -> Response:
    """Stop handing out tasks of a queue."""
    lane = _lane(call)
    ready(call)
    lane.pause(actor=actor(call))
    return _queue_answer(call, f"Queue {lane.name} is paused. Its running tasks continue.", lane)


def resume_queue(call: Call) -> Response:
    """Hand out tasks of a queue again."""
    lane = _lane(call)
    ready(call)
    lane.resume(actor=actor(call))
    return _queue_answer(call, f"Queue {lane.name} hands out tasks again.", lane)


def purge_queue(call: Call) -> Response:
    """Mark all unfinished tasks of a queue abandoned. A form must repeat the name of the queue."""
    lane = _lane(call)
    typed = fields.text(call.form, "queue_name")
    ready(call)
    if call.via != "api" and typed != lane.name:
        raise BadForm(f"that is not the name of the queue: write {lane.name} to purge it")
    changed = lane.purge(actor=actor(call))
    return _queue_answer(call, f"{counted(changed)} of queue {lane.name} abandoned.", lane, changed=changed)


def prune_queue(call: Call) -> Response:
    """Delete tasks of a queue that ended some time ago."""
    lane = _lane(call)
    age = fields.seconds(call.form, "older_than")
    states = fields.words(call.form, "states", sorted(FINAL), ("done", "cancelled"))
    ready(call)
    if age is None:
        raise BadField("older_than", "is missing: give an age such as 30d")
    with as_bad_form():
        changed = lane.prune(age, states=map(TaskState, states), actor=actor(call))
    return _queue_answer(call, f"{counted(changed)} of queue {lane.name} deleted.", lane, changed=changed)


def set_retention(call: Call) -> Response:
    """Store what is pruned in a queue in the background. A program may give some of it; a form gives all."""
    lane = _lane(call)
    ages = {str(state): fields.seconds(call.form, state) for state in FINAL}
    most = fields.number(call.form, "most", 0, MOST)
    ready(call)
    wanted: dict[str, Any] = {**ages, "most": most}
    if call.via == "api":
        known = lane.retention()._asdict()
        wanted = {name: value if name in call.form.values else known[name] for name, value in wanted.items()}
    lane.set_retention(**wanted, actor=actor(call))
    return _queue_answer(call, f"Retention of queue {lane.name} is stored.", lane, **wanted)


# -- a schedule ------------------------------------------------------------------------------------


def _schedule_answer(call: Call, text: str, queue: str, name: str, **more: object) -> Response:
    def value() -> object:
        return {**as_schedule(find_schedule(call.queue.store, queue, name))._asdict(), **more}

    return answer(call, f"Schedule {name} {text}.", "/schedule", value, queue=queue, name=name)


def _schedule(call: Call) -> tuple[str, str]:
    queue, name = call.query.name("queue"), call.query.name()
    ready(call)
    return queue, name


def run_schedule(call: Call) -> Response:
    """Enqueue a task of a schedule now."""
    queue, name = _schedule(call)
    action = new_action(actor(call), "run", queue=queue, schedule=name)
    task = run_now(call.queue.store, queue, name, action)
    return _schedule_answer(call, f"has enqueued task {task}", queue, name, task=task)


def _pause_schedule(call: Call, queue: str, name: str, paused: bool) -> None:
    verb = "pause schedule" if paused else "resume schedule"
    set_paused(call.queue.store, queue, name, paused, new_action(actor(call), verb, queue=queue, schedule=name))


def pause_schedule(call: Call) -> Response:
    """Pause a schedule."""
    queue, name = _schedule(call)
    _pause_schedule(call, queue, name, True)
    return _schedule_answer(call, "is paused", queue, name)


def resume_schedule(call: Call) -> Response:
    """Resume a schedule."""
    queue, name = _schedule(call)
    _pause_schedule(call, queue, name, False)
    return _schedule_answer(call, "is resumed", queue, name)
