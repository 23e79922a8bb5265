"""Acting by the API and by forms: what is done, what is refused, and what the audit log has of it."""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from dashboard.clients import form_headers, mounted
from dashboard.forms import Page, go
from helpers import until
from servers.requirements import library
from starlette.testclient import TestClient

from dbtaskqueue import Task, TaskQueue
from dbtaskqueue._formats.filters import parse
from dbtaskqueue.operations import create_operation
from dbtaskqueue.testing import run_tasks

pytestmark = pytest.mark.one_engine("SQL of these verbs is tested in tests/conformance")

HOSTILE = "a/b?c#<i>&\"'"


def api(client: TestClient, path: str, body: object = None) -> Any:
    """POST to the API."""
    return client.post(f"/api/v1/{path}", json={} if body is None else body, headers=form_headers(client))


def running(queue: TaskQueue, payload: object = None) -> Task:
    """Return a task that this program runs."""
    queue.enqueue(payload)
    [task] = queue.fetch()
    task.start()
    return task


def done(queue: TaskQueue) -> Task:
    task = running(queue)
    task.finish(1)
    return task


def pending(queue: TaskQueue) -> Task:
    return queue.enqueue({"n": 1}, start_in=3600)


def cancelled(queue: TaskQueue) -> Task:
    task = pending(queue)
    task.cancel()
    return task


# -- one task --------------------------------------------------------------------------------------

VERBS: list[tuple[str, Callable[[TaskQueue], Task], dict[str, Any], str, dict[str, Any]]] = [
    ("cancel", pending, {}, "operate", {"state": "cancelled"}),
    ("cancel", running, {}, "operate", {"state": "running", "cancel_requested": True}),
    ("retry", done, {}, "operate", {"state": "pending", "result": None}),
    ("reschedule", pending, {"priority": 7}, "operate", {"priority": 7}),
    ("reschedule", pending, {"queue": "other", "start_in": "1d"}, "operate", {"queue": "other"}),
]
REFUSED: list[tuple[str, Callable[[TaskQueue], Task], dict[str, Any]]] = [
    ("cancel", done, {}),
    ("retry", running, {}),
    ("suspend", running, {}),
    ("continue", pending, {}),
    ("reschedule", running, {"priority": 1}),
    ("delete", pending, {}),
]


@pytest.mark.parametrize(
    ("verb", "make", "body", "role", "expected"), VERBS, ids=[f"{v[0]}-{v[1].__name__}" for v in VERBS]
)
def test_a_program_gets_what_is_there_afterwards(
    queue: TaskQueue,
    verb: str,
    make: Callable[[TaskQueue], Task],
    body: dict[str, Any],
    role: str,
    expected: dict[str, Any],
) -> None:
    task = make(queue)
    answer = api(mounted(queue, role), f"tasks/{task.id}/{verb}", body)
    assert answer.status_code == 200, answer.text
    assert expected.items() <= answer.json().items()
    [row] = queue.audit(task=task.id)
    assert (row.who, row.via, row.verb, row.count, row.outcome) == ("someone", "api", verb, 1, "done")


@pytest.mark.parametrize(("verb", "make", "body"), REFUSED, ids=[f"{v[0]}-{v[1].__name__}" for v in REFUSED])
def test_another_state_is_refused_and_leaves_a_row(
    queue: TaskQueue, verb: str, make: Callable[[TaskQueue], Task], body: dict[str, Any]
) -> None:
    task = make(queue)
    answer = api(mounted(queue), f"tasks/{task.id}/{verb}", body)
    assert (answer.status_code, answer.json()["type"]) == (409, "InvalidTransition")
    [row] = queue.audit(task=task.id)
    assert (row.verb, row.count) == (verb, 0)
    assert row.outcome != "done"


@pytest.mark.parametrize("verb", ["cancel", "retry", "suspend", "continue", "delete"])
def test_a_missing_task(queue: TaskQueue, verb: str) -> None:
    answer = api(mounted(queue), f"tasks/99/{verb}")
    assert (answer.status_code, answer.json()["type"]) == (404, "TaskNotFound")


def test_a_task_is_deleted(queue: TaskQueue) -> None:
    task = done(queue)
    client = mounted(queue)
    assert api(mounted(queue, "operate"), f"tasks/{task.id}/delete").status_code == 403
    assert api(client, f"tasks/{task.id}/delete").status_code == 200
    assert client.get(f"/api/v1/tasks/{task.id}").status_code == 404
    assert [row.verb for row in queue.audit(task=task.id)] == ["delete"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "start_in"),
        ({"priority": "high"}, "priority"),
        ({"priority": 40_000}, "priority"),
        ({"start_in": -1}, "start_in"),
        ({"start_in": "soon"}, "start_in"),
        ({"queue": "a b"}, "queue"),
        ({"priority": True}, "priority"),
        ({"colour": "red"}, "colour"),
        ({"queue": 7}, "queue"),
    ],
)
def test_a_bad_body_is_named(queue: TaskQueue, body: dict[str, Any], named: str) -> None:
    task = pending(queue)
    answer = api(mounted(queue), f"tasks/{task.id}/reschedule", body)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert task.refresh().priority == 0


def test_unknown_parameters_are_refused(queue: TaskQueue) -> None:
    task = pending(queue)
    assert api(mounted(queue), f"tasks/{task.id}/cancel?force=1").status_code == 400
    assert task.refresh().state == "pending"


# -- queues and schedules --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mail", "..", ".", "a:b"])
def test_a_queue_is_paused_and_resumed(queue: TaskQueue, name: str) -> None:
    client, lane = mounted(queue, "operate"), queue.lane(name)
    assert api(client, f"queue/pause?name={name}").json() == {"name": name, "paused": True}
    assert lane.stats().paused
    assert api(client, f"queue/resume?name={name}").json() == {"name": name, "paused": False}
    assert not lane.stats().paused
    assert [(row.verb, row.queue) for row in queue.audit()] == [("resume", name), ("pause", name)]


@pytest.mark.parametrize("verb", ["pause", "resume", "purge", "prune"])
@pytest.mark.parametrize("query", ["", "?name=", "?name=a/b", "?name=a&name=b", "?name=%00"])
def test_a_queue_needs_its_name(queue: TaskQueue, verb: str, query: str) -> None:
    assert api(mounted(queue), f"queue/{verb}{query}", {"older_than": 0}).status_code == 400


def test_a_queue_is_purged_and_pruned(queue: TaskQueue) -> None:
    client = mounted(queue)
    lane = queue.lane("mail")
    lane.enqueue_many(range(3))
    assert api(client, "queue/purge?name=mail").json()["changed"] == 3
    assert lane.stats().abandoned == 3
    assert api(client, "queue/prune?name=mail", {"older_than": 3600, "states": ["abandoned"]}).json()["changed"] == 0
    assert api(client, "queue/prune?name=mail", {"older_than": 0, "states": ["abandoned"]}).json()["changed"] == 3
    assert lane.tasks() == []
    assert [row.verb for row in queue.audit(queue="mail")] == ["prune", "prune", "purge"]


@pytest.mark.parametrize("body", [{}, {"older_than": -1}, {"older_than": 1, "states": ["pending"]}, {"older_than": []}])
def test_prune_needs_an_age_and_final_states(queue: TaskQueue, body: dict[str, Any]) -> None:
    assert api(mounted(queue), "queue/prune?name=mail", body).status_code == 422


@pytest.mark.parametrize("name", ["nightly", HOSTILE])
def test_a_schedule_is_paused_resumed_and_run(queue: TaskQueue, name: str) -> None:
    queue.schedule(name, {"a": 1}, every=3600)
    client = mounted(queue, "operate")

    def post(verb: str) -> Any:
        found = client.post(
            f"/api/v1/schedule/{verb}",
            params={"queue": queue.name, "name": name},
            json={},
            headers=form_headers(client),
        )
        assert found.status_code == 200, found.text
        return found.json()

    assert post("pause")["paused"]
    assert queue.schedules()[0].paused
    assert not post("resume")["paused"]
    task = queue.get(post("run")["task"])
    assert task.payload == {"a": 1}
    assert len(queue.audit()) == 3


@pytest.mark.parametrize("verb", ["pause", "resume", "run"])
def test_a_missing_schedule(queue: TaskQueue, verb: str) -> None:
    assert api(mounted(queue), f"schedule/{verb}?queue=default&name=x").status_code == 404
    assert api(mounted(queue), f"schedule/{verb}?queue=default&name=").status_code == 400
    assert api(mounted(queue), f"schedule/{verb}?name=x").status_code == 400


# -- enqueueing ------------------------------------------------------------------------------------


def test_a_program_enqueues_a_payload(queue: TaskQueue) -> None:
    answer = api(mounted(queue), "tasks", {"queue": "mail", "payload": {"to": "a"}, "priority": 3, "max_attempts": 2})
    assert answer.status_code == 201
    task = queue.get(answer.json()["id"])
    assert (task.queue, task.payload, task.priority, task.max_attempts) == ("mail", {"to": "a"}, 3, 2)
    [row] = queue.audit()
    assert (row.verb, row.queue, row.count) == ("enqueue", "mail", 1)
    assert "to" not in str(row.detail)


def test_a_program_enqueues_a_call(queue: TaskQueue) -> None:
    body = {"queue": "mail", "function": "app.send", "args": [1], "kwargs": {"b": 2}, "start_in": 60, "key": "k"}
    task = queue.get(api(mounted(queue), "tasks", body).json()["id"])
    assert (task.function, task.payload, task.key) == ("app.send", {"args": [1], "kwargs": {"b": 2}}, "k")
    assert (task.start_at - task.created_at).total_seconds() == 60


def test_a_key_that_is_taken_returns_its_task(queue: TaskQueue) -> None:
    first = queue.enqueue(1, key="k")
    answer = api(mounted(queue), "tasks", {"payload": 2, "key": "k"})
    assert (answer.status_code, answer.json()["id"]) == (200, first.id)
    assert len(queue.tasks()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"payload": 1, "function": "a.b"},
        {"payload": 1, "colour": 1},
        {"payload": 1, "priority": 1.5},
        {"payload": 1, "max_attempts": 0},
        {"payload": 1, "key": ""} | {"queue": "a b"},
        {"function": "a.b", "args": {}},
        {"function": "a.b", "kwargs": []},
        {"function": ""},
        {"function": "a\nb"},
        {"payload": 1, "key": "\x00"},
        {"payload": 1, "start_in": 1e300},
    ],
    ids=lambda body: ascii(body)[:40],
)
def test_a_bad_task_is_refused_and_stores_nothing(queue: TaskQueue, body: dict[str, Any]) -> None:
    answer = api(mounted(queue), "tasks", body)
    assert answer.status_code == 422, answer.text
    assert queue.queues() == []


def test_command_lines_are_off(queue: TaskQueue) -> None:
    """Threat 17: they are programs on workers."""
    body = {"command": ["ls", "-l"]}
    assert api(mounted(queue), "tasks", body).status_code == 403
    assert queue.tasks() == []
    assert 'name="command"' not in go(mounted(queue), "/enqueue").text
    answer = api(mounted(queue, allow_commands=True), "tasks", body)
    assert answer.status_code == 201
    assert queue.get(answer.json()["id"]).is_command
    assert api(mounted(queue, allow_commands=True), "tasks", {"command": "ls -l"}).status_code == 422


def test_only_administrators_enqueue(queue: TaskQueue) -> None:
    assert api(mounted(queue, "operate"), "tasks", {"payload": 1}).status_code == 403
    assert go(mounted(queue, "operate"), "/enqueue").status_code == 403


def test_the_form_names_bad_json_at_its_place(queue: TaskQueue) -> None:
    page = go(mounted(queue), "/enqueue").press("Enqueue", queue="mail", payload='{"path": ')
    assert page.status_code == 422
    assert "line 1, column 10" in page.text
    assert 'aria-invalid="true"' in page.text
    assert page.form("Enqueue").fields["payload"] == ['{"path": ']
    assert queue.queues() == []
    page = page.press("Enqueue", payload='{"path": "/a"}')
    assert page.status == "Task 1 is enqueued."
    assert [task.payload for task in queue.lane("mail").tasks()] == [{"path": "/a"}]


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        ("", {"args": [], "kwargs": {}}),
        ('["a", 3]', {"args": ["a", 3], "kwargs": {}}),
        ('{"w": 9}', {"args": [], "kwargs": {"w": 9}}),
        ('{"args": [1], "kwargs": {"b": 2}}', {"args": [1], "kwargs": {"b": 2}}),
    ],
)
def test_the_form_enqueues_a_call(queue: TaskQueue, arguments: str, stored: object) -> None:
    go(mounted(queue), "/enqueue").press("Enqueue", function="app.send", arguments=arguments)
    [task] = queue.tasks()
    assert (task.function, task.payload) == ("app.send", stored)


@dataclass
class Period:
    since: date
    days: int = 1


@pytest.fixture
def typed(url: str) -> Iterator[TaskQueue]:
    """A queue with a function that has typed arguments, in the program of the dashboard."""
    library("msgspec")
    from dbtaskqueue.integrations.msgspec import MsgspecCoder

    with TaskQueue(url, coders=[MsgspecCoder()]) as queue:

        @queue.task(name="report")
        def report(day: date, period: Period) -> date:
            return day + (day - period.since) * period.days

        report.__wrapped__.__annotations__ |= {"day": date, "period": Period, "return": date}  # type: ignore[attr-defined]
        yield queue


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('["soon", {"since": "2026-11-28"}]', "report: argument day: Invalid RFC3339 encoded date"),
        ('["2026-11-29", {"since": 7}]', "report: argument period.since: Expected `date`, got `int`"),
        ('["2026-11-29"]', "report: missing a required argument: 'period'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(typed: TaskQueue, arguments: str, reason: str) -> None:
    """The worker would abandon the task. Here the function is known, so it is checked before."""
    page = go(mounted(typed), "/enqueue").press("Enqueue", function="report", arguments=arguments)
    assert page.status_code == 422
    assert f"Arguments do not fit: {reason}" in html.unescape(page.text)
    assert 'aria-invalid="true"' in page.text
    answer = api(mounted(typed), "tasks", {"function": "report", "args": json.loads(arguments)})
    assert (answer.status_code, answer.json()["detail"]) == (422, f"args do not fit: {reason}")
    assert typed.queues() == []


def test_arguments_that_fit_are_stored_as_they_are(typed: TaskQueue) -> None:
    """The worker decodes them."""
    arguments = '{"day": "2026-11-29", "period": {"since": "2026-11-28"}}'
    page = go(mounted(typed), "/enqueue").press("Enqueue", function="report", arguments=arguments)
    assert page.status == "Task 1 is enqueued."
    api(mounted(typed), "tasks", {"function": "report", "args": ["2026-11-29", {"since": "2026-11-27", "days": 2}]})
    go(mounted(typed), "/enqueue?copy=1").press("Enqueue")
    assert typed.get(1).payload == {"args": [], "kwargs": json.loads(arguments)}
    assert [task.result for task in run_tasks(typed)] == ["2026-11-30", "2026-12-03", "2026-11-30"]


@pytest.mark.parametrize(
    "payload",
    [
        {"args": [1], "kwargs": {"b": 2}},
        {"args": [], "kwargs": {"args": [1], "kwargs": {}}},
        {"args": ["<b>\n"], "kwargs": {}},
    ],
)
def test_a_copy_of_a_call_is_the_same_call(queue: TaskQueue, payload: Any) -> None:
    [task] = queue.submit([payload], {"priority": 5, "max_attempts": 3, "key": "once"}, "app.f")
    go(mounted(queue), f"/enqueue?copy={task.id}").press("Enqueue")
    copy = queue.tasks()[0]
    assert copy.id != task.id
    assert (copy.function, copy.payload, copy.priority, copy.max_attempts) == ("app.f", payload, 5, 3)
    assert copy.key is None


def test_a_copy_shows_no_hidden_payload(queue: TaskQueue) -> None:
    """Threat 19."""
    task = queue.enqueue({"password": "canary"})
    page = go(mounted(queue, hide=["payload"]), f"/enqueue?copy={task.id}")
    assert page.status_code == 200
    assert "canary" not in page.text


# -- without JavaScript ----------------------------------------------------------------------------


def test_cancel_by_pages_alone(queue: TaskQueue) -> None:
    task = pending(queue)
    page = go(mounted(queue, "operate"), f"/tasks/{task.id}").press("Cancel")
    assert f"Cancel task {task.id}?" in page.text
    assert task.refresh().state == "pending"
    page = page.press("Cancel task")
    assert page.status == f"Task {task.id} is cancelled."
    assert task.refresh().state == "cancelled"
    [row] = queue.audit()
    assert (row.via, row.who) == ("dashboard", "someone")


def test_a_result_is_said_once(queue: TaskQueue) -> None:
    task, client = pending(queue), mounted(queue)
    go(client, f"/tasks/{task.id}/cancel").press("Cancel task")
    assert go(client, f"/tasks/{task.id}").status == ""


def test_a_refusal_is_an_alert(queue: TaskQueue) -> None:
    task = running(queue)
    page = go(mounted(queue), f"/tasks/{task.id}/cancel")
    task.finish()
    page = page.press("Cancel task")
    assert page.status_code == 409
    assert "done" in page.alert


def test_purge_asks_for_the_name_of_the_queue(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    page = go(mounted(queue), "/queue?name=default").press("Purge")
    assert task.refresh().state == "pending"
    refused = page.press("Purge queue", queue_name="defualt")
    assert refused.status_code == 422
    assert task.refresh().state == "pending"
    assert refused.alert
    page.press("Purge queue", queue_name="default")
    assert task.refresh().state == "abandoned"


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example/", "/\\evil", "/a\r\nx: y", "javascript:alert(1)"]
)
def test_22_a_form_leads_only_to_our_own_pages(queue: TaskQueue, back: str) -> None:
    task, client = pending(queue), mounted(queue)
    answer = client.post(f"/tasks/{task.id}/cancel", data={"back": back}, headers=form_headers(client))
    assert answer.headers["location"] == f"/tasks/{task.id}"


def test_what_is_said_is_text(queue: TaskQueue) -> None:
    queue.schedule(HOSTILE, 1, every=3600)
    client = mounted(queue)
    answer = client.post("/schedule/pause", params={"queue": queue.name, "name": HOSTILE}, headers=form_headers(client))
    assert answer.status_code == 303
    page = go(client, answer.headers["location"])
    assert "<i>" not in page.text
    assert HOSTILE in page.status


# -- many tasks ------------------------------------------------------------------------------------


def choose(page: Page, button: str, *ids: int) -> Page:
    """Choose tasks in a list, and press a button below it."""
    return page.press(button, id=[str(id) for id in ids])


def test_three_chosen_tasks_are_retried(queue: TaskQueue) -> None:
    tasks = [cancelled(queue) for _ in range(5)]
    client = mounted(queue, "operate")
    page = choose(go(client, "/tasks?state=cancelled"), "Retry", tasks[0].id, tasks[2].id, tasks[4].id)
    assert "Retry 3 tasks?" in page.text
    assert [row for row in queue.audit() if row.verb == "retry"] == []
    page = page.press("Retry tasks")
    assert page.status == "Retried: 3 tasks."
    assert str(page.answer.url).endswith("/tasks?state=cancelled")
    states = [task.refresh().state for task in tasks]
    assert states == ["pending", "cancelled", "pending", "cancelled", "pending"]
    [row] = queue.audit()
    assert (row.verb, row.via, row.who, row.count) == ("retry", "dashboard", "someone", 3)


def test_what_is_refused_of_chosen_tasks_is_said(queue: TaskQueue) -> None:
    first, second = cancelled(queue), pending(queue)
    page = choose(go(mounted(queue), "/tasks"), "Retry", first.id, second.id).press("Retry tasks")
    assert page.status == "Retried: 1 task. Refused 1 task: it is pending."
    page = choose(go(mounted(queue), "/tasks"), "Retry", first.id, second.id).press("Retry tasks")
    assert page.status_code == 409
    assert "No task was retried" in page.alert


def test_nothing_chosen(queue: TaskQueue) -> None:
    pending(queue)
    assert go(mounted(queue), "/tasks").press("Cancel").status_code == 422


def test_only_administrators_delete_many(queue: TaskQueue) -> None:
    task = cancelled(queue)
    page = go(mounted(queue, "operate"), "/tasks")
    assert "Delete" not in page.form("Retry").buttons
    client = mounted(queue, "operate")
    data = {"verb": "delete", "id": str(task.id), "confirmed": "1"}
    assert client.post("/operations", data=data, headers=form_headers(client)).status_code == 403
    assert api(client, "operations", {"verb": "delete", "where": {"id": [task.id]}}).status_code == 403
    assert choose(go(mounted(queue), "/tasks"), "Delete", task.id).press("Delete tasks").status == "Deleted: 1 task."


def test_chosen_tasks_are_rescheduled(queue: TaskQueue) -> None:
    task = pending(queue)
    page = choose(go(mounted(queue), "/tasks"), "Reschedule", task.id)
    assert page.press("Reschedule tasks").status_code == 422
    page.press("Reschedule tasks", priority="7", queue="other", start_in="0s")
    assert (task.refresh().priority, task.queue) == (7, "other")


def test_retention_is_stored(queue: TaskQueue) -> None:
    client = mounted(queue)
    answer = api(client, "queue/retention?name=default", {"done": "30d", "most": 1000})
    assert answer.status_code == 200, answer.text
    assert api(client, "queue/retention?name=default", {"most": None, "abandoned": 60}).json()["done"] == 30 * 86400
    found = queue.retention()
    assert (found.done, found.cancelled, found.abandoned, found.most) == (30 * 86400, None, 60, None)
    assert api(client, "queue/retention?name=default", {"done": -1}).status_code == 422
    page = go(client, "/queue/retention?name=default")
    assert page.form("Save").fields["done"] == ["30d"]
    page.press("Save", done="", cancelled="12h")
    assert (queue.retention().done, queue.retention().cancelled) == (None, 12 * 3600)
    assert [row.verb for row in queue.audit()] == ["retention"] * 3


# -- operations ------------------------------------------------------------------------------------


def ended(client: TestClient, id: int) -> dict[str, Any]:
    """Wait until an operation has ended; return it."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/api/v1/operations/{id}").json()
        return None if found["state"] == "running" else found

    return until(look, what=f"the end of operation {id}")


def test_an_operation_acts_on_all_that_match(queue: TaskQueue) -> None:
    client, mail = mounted(queue, "operate"), queue.lane("mail")
    mail.enqueue_many(range(1200))
    mail.tasks(limit=1)[0].cancel()
    queue.enqueue_many(range(3))
    answer = api(client, "operations", {"verb": "cancel", "where": {"queue": "mail"}})
    assert answer.status_code == 202
    assert {"id", "state", "changed", "refused"} <= answer.json().keys()
    found = ended(client, answer.json()["id"])
    assert (found["state"], found["changed"], found["refused"]) == ("done", 1199, {"it is cancelled": 1})
    assert found["where"] == {"queue": ["mail"]}
    assert mail.stats().cancelled == 1200
    assert queue.stats().pending == 3
    rows = [row for row in queue.audit() if row.who == "someone"]
    assert sum(row.count for row in rows) == 1199


def test_an_operation_by_a_form(queue: TaskQueue) -> None:
    client, mail = mounted(queue, "operate"), queue.lane("mail")
    mail.enqueue_many(range(60))
    page = go(client, "/tasks?queue=mail").press("Cancel", all="1")
    assert "Cancel 60 tasks?" in page.text
    assert "queue:mail" in page.text
    later = mail.enqueue("enqueued while somebody reads the question")
    page = page.press("Cancel tasks")
    assert str(page.answer.url).endswith("/operations/1")
    assert page.status == "Operation 1 has started."
    assert ended(client, 1)["changed"] == 60
    assert later.refresh().state == "pending"
    page = go(client, "/operations/1")
    assert "done" in page.text
    assert "Operation 1" not in go(client, "/").text
    assert "/operations/1" in go(client, "/operations").text


def test_tasks_that_are_enqueued_later_are_not_meant(queue: TaskQueue) -> None:
    first = queue.enqueue(1)
    id = create_operation(queue.store, "cancel", parse({"queue": "default"}, 0), {}, "me")
    later = queue.enqueue(2)
    client = mounted(queue)
    assert ended(client, id)["changed"] == 1
    assert (first.refresh().state, later.refresh().state) == ("cancelled", "pending")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "verb"),
        ({"verb": "purge", "where": {"state": "failed"}}, "verb"),
        ({"verb": ["cancel"], "where": {"state": "failed"}}, "verb"),
        ({"verb": "cancel"}, "where"),
        ({"verb": "cancel", "where": {}}, "where"),
        ({"verb": "cancel", "where": []}, "where"),
        ({"verb": "cancel", "where": {"colour": "red"}}, "colour"),
        ({"verb": "cancel", "where": {"state": "red"}}, "state"),
        ({"verb": "cancel", "where": {"queue": "mail"}, "spread": 1}, "spread"),
        ({"verb": "reschedule", "where": {"queue": "mail"}}, "start_in"),
        ({"verb": "retry", "where": {"queue": "mail"}, "spread": -1}, "spread"),
    ],
)
def test_a_bad_operation_is_refused(queue: TaskQueue, body: dict[str, Any], named: str) -> None:
    answer = api(mounted(queue), "operations", body)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert queue.store.operations(1) == []


def test_an_operation_of_an_administrator_is_stopped_by_one(queue: TaskQueue) -> None:
    id = create_operation(queue.store, "delete", parse({"queue": "x"}, 0), {}, "me")
    assert api(mounted(queue, "operate", read_only=False), f"operations/{id}/stop").status_code == 403
    assert api(mounted(queue), "operations/99/stop").status_code == 404
    client = mounted(queue)
    ended(client, id)
    assert api(client, f"operations/{id}/stop").status_code == 409


def test_what_is_hidden_cannot_be_asked_for(queue: TaskQueue) -> None:
    """Threat 19: whether a task matches would tell its payload."""
    answer = api(mounted(queue, hide=["payload"]), "operations", {"verb": "retry", "where": {"payload.a": 1}})
    assert answer.status_code in (400, 422)


def test_a_dashboard_that_may_only_look_carries_out_nothing(queue: TaskQueue) -> None:
    create_operation(queue.store, "cancel", parse({"queue": "default"}, 0), {}, "me")
    before = set(threading.enumerate())
    client = mounted(queue, read_only=True)
    assert client.get("/api/v1/operations/1").json()["state"] == "running"
    assert [thread for thread in threading.enumerate() if thread.name == "operations" and thread not in before] == []


def test_the_page_of_a_task_says_what_was_done_with_it(queue: TaskQueue) -> None:
    task = pending(queue)
    client = mounted(queue)
    assert "What operators did" not in go(client, f"/tasks/{task.id}").text
    page = go(client, f"/tasks/{task.id}").press("Cancel").press("Cancel task")
    assert "What operators did" in page.text
    assert "someone" in page.text.partition("What operators did")[2]


@pytest.mark.parametrize("query", ["who=someone", "verb=cancel", "task=1", "who=&verb=&queue=&task=1"])
def test_the_audit_log_is_filtered(queue: TaskQueue, query: str) -> None:
    client = mounted(queue)
    api(client, f"tasks/{pending(queue).id}/cancel")
    queue.pause(actor="another")
    [row] = client.get(f"/api/v1/audit?{query}").json()["audit"]
    assert row.keys() == {"id", "at", "who", "via", "verb", "queue", "task", "detail", "count", "outcome"}
    assert (row["verb"], row["task"]) == ("cancel", 1)
    assert "another" not in go(client, f"/audit?{query}").text


def test_the_audit_log_and_operations_have_pages(queue: TaskQueue) -> None:
    for _ in range(60):
        queue.pause(actor="me")
        create_operation(queue.store, "cancel", parse({"queue": "x"}, 0), {}, "me")
    client = mounted(queue, "look", read_only=True)
    for name, rows in (("audit", "audit"), ("operations", "operations")):
        seen, before = [], None
        while before != 0:
            page = client.get(f"/api/v1/{name}", params={} if before is None else {"before": before}).json()
            seen += [row["id"] for row in page[rows]]
            before = page["next"] or 0
        assert seen == sorted(set(seen), reverse=True)
        assert len(seen) == (120 if name == "audit" else 60)
        assert "Older" in go(client, f"/{name}").text
        assert "Newest" in go(client, f"/{name}?before=20").text
    assert client.get("/api/v1/operations/99").status_code == 404
    assert client.get("/operations/99").status_code == 404
