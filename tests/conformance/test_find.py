"""``find`` against a model in Python, its cursors, and the bounds of a search."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engines import cursor, execute

from dbtaskqueue import Found, TaskQueue
from dbtaskqueue._formats.filters import parse
from dbtaskqueue._store import candidates
from dbtaskqueue._store.contract import SearchRequest
from dbtaskqueue._store.verbs import search
from dbtaskqueue._system import clock
from dbtaskqueue.states import FINAL, TaskState

HOUR = 3_600_000_000
NOW = 1_900_000_000_000_000
STATES = [str(state) for state in TaskState]
TEXTS = ["timed out", "100%", "100_", "Timed Out", "é\U0001f600", "'; DROP TABLE x; --", "a\\b", '"q"', "<i>", "%", "_"]
FUNCTIONS = ["app.video.encode", "app.video.cut", "app.videos", "APP.video.encode", "app.%", "a_b", None]
VALUES: list[Any] = [1, 1.0, "1", True, None, "/srv/a", [1, 2], {"id": 7}, "é"]


Row = dict[str, Any]


def rows_of(seed: int, number: int) -> list[Row]:
    """Return random tasks as they are in the database, with their attempts."""
    choose = random.Random(seed)
    return [_row(choose, id) for id in range(1, number + 1) if id not in (7, 8, 40)]


def _row(choose: random.Random, id: int) -> Row:
    state = choose.choice(STATES)
    holds = state in ("reserved", "running")
    attempts = [
        {
            "token": token,
            "worker": choose.choice([1, 2, None]),
            "finished_at": NOW - choose.randrange(10) * HOUR,
            "error": choose.choice([*TEXTS, None]),
        }
        for token in range(1, choose.randrange(4))
    ]
    arguments = {"path": choose.choice(VALUES), "customer": {"id": choose.choice(VALUES), "tags": ["x", id % 3]}}
    function = choose.choice(FUNCTIONS)
    payload: Any = {"args": [], "kwargs": arguments} if function else arguments
    if id % 9 == 0:
        payload["pad"] = choose.choice(TEXTS) + "x" * 300
    is_command = function is None and id % 2 == 0
    return {
        "id": id,
        "queue": choose.choice(["default", "default", "video"]),
        "state": state,
        "rank": -choose.randrange(-2, 4),
        "due": NOW + choose.randrange(-5, 5) * HOUR,
        "created_at": NOW - choose.randrange(10) * HOUR,
        "token": len(attempts) + holds,
        "attempt": len(attempts) + (state == "running"),
        "worker": choose.choice([1, 2, 3]) if holds or state == "done" else None,
        "started_at": NOW - choose.randrange(10) * HOUR if attempts or state in ("running", "done") else None,
        "finished_at": NOW - choose.randrange(10) * HOUR if state in FINAL else None,
        "cancel_requested": int(state == "running" and id % 3 == 0),
        "suspended": len(attempts) + 1 if state == "running" and id % 2 else None,
        "blocked": int(state in ("pending", "failed") and id % 5 == 0),
        "key": f"key-{id % 11}" if state in FINAL and id % 2 else f"own-{id}" if id % 7 == 0 else None,
        "function": function,
        "command": int(is_command),
        "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":")),
        "options": json.dumps({"tick": {"schedule": f"hourly {id % 2}", "at": 1, "missed": 0}})
        if id % 4 == 0
        else None,
        "attempts": attempts,
    }


def store(url: str, rows: list[Row]) -> None:
    """Store tasks with plain SQL, without the library."""
    columns = [name for name in rows[0] if name != "attempts"]
    quoted = [name if name != "key" else ("`key`" if url.startswith("mariadb") else '"key"') for name in columns]
    for row in rows:
        large = row["payload"] if len(row["payload"]) > 256 else None
        values = [None if name == "payload" and large else row[name] for name in columns]
        marks = ", ".join(["%s"] * (len(values) + 1))
        execute(url, f"INSERT INTO dbtaskqueue_task ({', '.join(quoted)}, due_set_at) VALUES ({marks})", *values, 1)
        if large:
            execute(
                url, "INSERT INTO dbtaskqueue_large (task, name, value) VALUES (%s, 'payload', %s)", row["id"], large
            )
        for past in row["attempts"]:
            names = ("task", "token", "number", "worker", "finished_at", "outcome", "error")
            values = [
                row["id"],
                past["token"],
                past["token"],
                past["worker"],
                past["finished_at"],
                "failed",
                past["error"],
            ]
            execute(
                url, f"INSERT INTO dbtaskqueue_attempt ({', '.join(names)}) VALUES ({', '.join(['%s'] * 7)})", *values
            )


# -- the model -------------------------------------------------------------------------------------


def error_of(row: Row) -> str | None:
    errors = [past["error"] for past in row["attempts"] if past["error"] is not None]
    return errors[-1] if errors and row["attempt"] else None


def ended_at(row: Row) -> int | None:
    if row["finished_at"] is not None or row["state"] == "running" or not row["attempts"]:
        return row["finished_at"]
    return int(row["attempts"][-1]["finished_at"])


def worker_of(row: Row) -> int | None:
    return row["worker"] if row["worker"] is not None else row["attempts"][-1]["worker"] if row["attempts"] else None


def at_path(row: Row, *path: Any) -> list[Any]:
    """Return what a payload has at a path, also as an argument of a call; with true and 1 told apart."""
    payload = json.loads(row["payload"])
    found = []
    for value in (payload, payload.get("kwargs") if row["function"] else None):
        try:
            for name in path:
                value = value[name]
            found.append(json.dumps(value))
        except (KeyError, IndexError, TypeError):
            pass
    return [text.replace("1.0", "1") for text in found]


Test = Callable[[Row], bool]


def choices(row: Row, choose: random.Random) -> list[tuple[dict[str, Any], Test]]:
    """Return filters and what they mean, with values of which many are those of ``row``."""
    hours, number = choose.randrange(1, 9), choose.randrange(-2, 4)
    states = choose.sample(STATES, 2)
    text, value = choose.choice(TEXTS), choose.choice(VALUES)
    moment = datetime.fromtimestamp((NOW - hours * HOUR) / 1e6, UTC)
    low, high = sorted([choose.randrange(1, 120), choose.randrange(1, 120)])
    past = NOW - hours * HOUR
    same = json.dumps(value).replace("1.0", "1")
    found: list[tuple[dict[str, Any], Test]] = [
        ({"queue": "video"}, lambda each: each["queue"] == "video"),
        ({"state": states[0]}, lambda each: each["state"] == states[0]),
        ({"state": states}, lambda each: each["state"] in states),
        ({"state": ",".join(states)}, lambda each: each["state"] in states),
        ({"function": "app.video.*"}, lambda each: (each["function"] or "").startswith("app.video.")),
        ({"function": "app.%"}, lambda each: each["function"] == "app.%"),
        ({"function": "(commands)"}, lambda each: each["command"] == 1),
        ({"function": "(callback)"}, lambda each: not each["command"] and each["function"] is None),
        ({"key": row["key"] or "none"}, lambda each: each["key"] == (row["key"] or "none")),
        ({"schedule": "hourly 0"}, lambda each: '"hourly 0"' in (each["options"] or "")),
        ({"worker": 2}, lambda each: worker_of(each) == 2),
        ({"id": row["id"]}, lambda each: each["id"] == row["id"]),
        ({"id": f"{low}-{high}"}, lambda each: low <= each["id"] <= high),
        ({"id": [low, str(high)]}, lambda each: each["id"] in (low, high)),
        ({"priority": f">={number}"}, lambda each: -each["rank"] >= number),
        ({"priority": f"<{number}"}, lambda each: -each["rank"] < number),
        ({"priority": number}, lambda each: -each["rank"] == number),
        ({"attempt": ">1"}, lambda each: each["attempt"] > 1),
        ({"runs": f">{hours}h"}, lambda each: each["state"] == "running" and each["started_at"] < past),
        ({"runs": f"<={hours}h"}, lambda each: each["state"] == "running" and each["started_at"] >= past),
        ({"created": f"{hours}h"}, lambda each: each["created_at"] >= past),
        ({"created": timedelta(hours=hours)}, lambda each: each["created_at"] >= past),
        ({"created": f">{hours}h"}, lambda each: each["created_at"] < past),
        ({"created": moment}, lambda each: each["created_at"] >= past),
        ({"created": f"{moment.isoformat()}..{hours - 1}h"}, lambda each: past <= each["created_at"] <= past + HOUR),
        ({"started": f"{hours}h"}, lambda each: (each["started_at"] or 0) >= past),
        ({"ended": f"{hours}h"}, lambda each: (ended_at(each) or 0) >= past),
        ({"ended": f">{hours}h"}, lambda each: 0 < (ended_at(each) or 0) < past),
        ({"due": f"{hours}h"}, lambda each: NOW <= each["due"] <= NOW + hours * HOUR),
        ({"due": f">{hours}h"}, lambda each: each["due"] > NOW + hours * HOUR),
        ({"error": text}, lambda each: text in (error_of(each) or "")),
        ({"error": TEXTS[:3]}, lambda each: any(one in (error_of(each) or "") for one in TEXTS[:3])),
        ({"payload": text}, lambda each: text in each["payload"]),
        ({"payload.path": json.dumps(value)}, lambda each: same in at_path(each, "path")),
        (
            {"payload.customer.id": value if not isinstance(value, list | str) else json.dumps(value)},
            lambda each: same in at_path(each, "customer", "id"),
        ),
        (
            {"payload.customer.tags.1": row["id"] % 3},
            lambda each: str(row["id"] % 3) in at_path(each, "customer", "tags", 1),
        ),
        (
            {"text": text},
            lambda each: any(
                text in (part or "") for part in (error_of(each), each["payload"], each["function"], each["key"])
            ),
        ),
        ({"command": True}, lambda each: each["command"] == 1),
        ({"command": "false"}, lambda each: each["command"] == 0),
        ({"cancel_requested": True}, lambda each: each["cancel_requested"] == 1),
        ({"cancel_requested": False}, lambda each: each["cancel_requested"] == 0),
        ({"suspended": True}, lambda each: each["suspended"] is not None),
        ({"suspended": False}, lambda each: each["suspended"] is None),
        ({"blocked": True}, lambda each: each["blocked"] == 1),
        ({"blocked": False}, lambda each: each["blocked"] == 0),
    ]
    return found


ORDERS: dict[str, tuple[Callable[[Row], Any], Test]] = {
    "newest": (lambda row: -row["id"], lambda row: True),
    "line": (
        lambda row: (row["rank"], row["due"], row["id"]),
        lambda row: row["state"] in ("pending", "failed") and not row["blocked"],
    ),
    "due": (
        lambda row: (row["due"], row["id"]),
        lambda row: row["state"] in ("pending", "failed") and not row["blocked"],
    ),
    "longest": (lambda row: (row["started_at"] or 0, row["id"]), lambda row: row["state"] == "running"),
    "ended": (lambda row: (-(ended_at(row) or 0), -row["id"]), lambda row: ended_at(row) is not None),
}


def pages(queue: TaskQueue, /, **given: Any) -> Iterator[Found]:
    """Yield all pages of a search."""
    at = None
    while True:
        found = queue.find(cursor=at, **given)
        assert (found.next is None) == found.complete
        yield found
        if found.complete:
            return
        assert found.next != at
        at = found.next


def all_ids(queue: TaskQueue, /, **given: Any) -> list[int]:
    return [task.id for page in pages(queue, **given) for task in page.tasks]


@pytest.fixture
def rows(queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    monkeypatch.setattr(clock, "source", lambda: NOW)
    rows = rows_of(13, 120)
    store(url, rows)
    return rows


def test_each_filter_alone_and_combined_finds_what_the_model_finds(
    queue: TaskQueue, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = random.Random(5)
    singles = len(choices(rows[0], choose))
    for turn in range(singles * 2 + 150):
        # which of the ways a search takes does not change what it finds
        monkeypatch.setattr(search, "_FIRST_STEP", choose.choice([4, 128]))
        monkeypatch.setattr(candidates, "_DENSE", choose.choice([1, 8]))
        monkeypatch.setattr(candidates, "_FEW", choose.choice([5, 10_000]))
        row = choose.choice(rows)
        options = choices(row, choose)
        some = [options[turn % singles]] if turn < singles * 2 else choose.sample(options, choose.randrange(2, 5))
        given = {name: value for filters, _ in some for name, value in filters.items()}
        tests = [test for filters, test in some if given[next(iter(filters))] is filters[next(iter(filters))]]
        sort = choose.choice([*ORDERS, "newest", "newest"])
        key, is_listed = ORDERS[sort]
        every = choose.random() < 0.5
        expected = [
            each["id"]
            for each in sorted(rows, key=key)
            if is_listed(each)
            and all(test(each) for test in tests)
            and (every or "queue" in given or each["queue"] == "default")
        ]
        found = all_ids(queue, sort=sort, limit=choose.choice([3, 100]), all_queues=every, **given)
        assert found == expected, (given, sort, every)


def test_each_state_is_found_through_its_index(
    queue: TaskQueue, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_FIRST_STEP", 4)
    monkeypatch.setattr(candidates, "_DENSE", 1)
    for state in STATES:
        expected = [row["id"] for row in reversed(rows) if row["state"] == state and row["queue"] == "default"]
        assert all_ids(queue, state=state, limit=3) == expected
        assert all_ids(queue, state=state, created="100d", limit=3) == expected


def test_small_steps_find_the_same(queue: TaskQueue, rows: list[Row]) -> None:
    everything = [row["id"] for row in reversed(rows)]
    filters = parse({}, NOW)
    at, found = None, []
    while True:
        page = queue.store.search_ids(SearchRequest(filters, limit=4, cursor=at, rows=3))
        assert page.scanned <= 3
        assert page.back_to == min(page.ids)
        found += page.ids
        at = page.next
        if at is None:
            break
    assert found == everything


def test_ends_are_sorted_window_by_window(queue: TaskQueue, rows: list[Row]) -> None:
    at, found = None, []
    while True:
        page = queue.store.search_ids(SearchRequest(parse({}, NOW), sort="ended", limit=4, cursor=at, rows=25))
        found += page.ids
        at = page.next
        if at is None:
            break
    assert sorted(found) == [row["id"] for row in rows if ended_at(row) is not None]
    ends = {row["id"]: (ended_at(row), row["id"]) for row in rows}
    assert found[:4] == sorted([id for id in found if id > rows[-26]["id"]], key=ends.__getitem__, reverse=True)[:4]


def test_a_search_does_not_look_above_the_highest_id(queue: TaskQueue, rows: list[Row]) -> None:
    page = queue.store.search_ids(SearchRequest(parse({"state": "done"}, NOW), highest=60))
    assert page.ids == [row["id"] for row in reversed(rows) if row["state"] == "done" and row["id"] <= 60]


def test_a_cursor_walks_all_tasks_once_while_others_are_enqueued(queue: TaskQueue) -> None:
    ids = [task.id for task in queue.enqueue_many(range(1234))]
    found: list[int] = []
    for page in pages(queue, limit=100):
        found += [task.id for task in page.tasks]
        queue.enqueue_many([None] * 7)
    assert found == ids[::-1]


def test_the_bounds_are_respected_and_the_search_continues(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many([{"n": number} for number in range(50)])
    page = queue.store.search_ids(SearchRequest(parse({"payload": '"n":3}'}, NOW), rows=20))
    assert (page.ids, page.scanned) == ([], 20)
    assert page.next is not None
    late = queue.store.search_ids(SearchRequest(parse({"payload": '"n":3}'}, NOW), rows=20, seconds=0))
    assert late.scanned <= 20
    found, at, scanned = [], page.next, page.scanned
    while at is not None:
        page = queue.store.search_ids(SearchRequest(parse({"payload": '"n":3}'}, NOW), cursor=at, rows=20))
        found, at, scanned = found + page.ids, page.next, scanned + page.scanned
    assert len(found) == 1
    assert scanned == 50


@pytest.mark.engine("sqlite")
def test_a_rare_task_among_a_million_is_found_in_steps(queue: TaskQueue, url: str) -> None:
    copy = """
        WITH RECURSIVE number(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM number WHERE value < 1000000)
        INSERT INTO dbtaskqueue_task (id, queue, state, rank, due, due_set_at, created_at, finished_at, payload)
        SELECT value, 'default', 'done', 0, 1, 1, 1, 1,
               CASE WHEN value = 100000 THEN '"needle"' ELSE '{"n":1}' END FROM number"""
    execute(url, copy)
    found = []
    for page in pages(queue, payload="needle"):
        assert page.scanned <= 20_000
        found += [task.id for task in page.tasks]
    assert found == [100_000]


def test_arguments_of_task_functions_are_found_by_name(queue: TaskQueue) -> None:
    @queue.task(name="app.encode")
    def encode(path: str, quality: int = 1) -> None: ...

    first, second = encode.enqueue("/srv/a", 3), encode.enqueue(path="/srv/a")
    other = queue.enqueue({"path": "/srv/a"})
    encode.enqueue("/srv/b", quality=5)
    assert all_ids(queue, **{"payload.path": "/srv/a"}) == [other.id, second.id, first.id]
    assert all_ids(queue, **{"payload.quality": 3}) == [first.id]
    assert all_ids(queue, **{"payload.args.0": "/srv/a"}) == [first.id]


@pytest.mark.one_engine("checked before the database is asked")
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"stat": "done"}, "stat"),
        ({"state": "finished"}, "state"),
        ({"state": []}, "state"),
        ({"queue": "a b"}, "queue"),
        ({"id": "x"}, "id"),
        ({"id": 1.5}, "id"),
        ({"priority": "high"}, "priority"),
        ({"attempt": True}, "attempt"),
        ({"runs": ">1"}, None),
        ({"runs": "long"}, "runs"),
        ({"created": "yesterday"}, "created"),
        ({"created": datetime(2030, 1, 1)}, "created"),
        ({"ended": 5}, "ended"),
        ({"due": ".."}, "due"),
        ({"error": ""}, "error"),
        ({"error": "\x00"}, "error"),
        ({"payload": "\ud800"}, "payload"),
        ({"payload.a": {1, 2}}, "payload.a"),
        ({"payload.": 1}, "payload."),
        ({"blocked": "perhaps"}, "blocked"),
        ({"blocked": [True, False]}, "blocked"),
        ({"sort": "oldest"}, "sort"),
        ({"limit": 0}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "line.1.2.3"}, "cursor"),
        ({"cursor": "newest.1.2"}, "cursor"),
    ],
)
def test_invalid_filters_are_named(queue: TaskQueue, given: dict[str, Any], named: str | None) -> None:
    if named is None:
        queue.find(**given)
        return
    with pytest.raises(ValueError, match=named.replace(".", "[.]")):
        queue.find(**given)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**29])
def test_numbers_beyond_64_bits_match_nothing_or_everything(queue: TaskQueue, number: int) -> None:
    queue.enqueue(1)
    for name in ("id", "worker", "priority", "attempt"):
        assert all_ids(queue, **{name: number}) == []
    assert all_ids(queue, attempt=f"<{10**29}", priority=f">-{10**29}") == [1]


def test_overdue_tasks_are_found(queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "source", lambda: NOW)
    common = {**rows_of(1, 1)[0], "queue": "default", "function": "app.f", "command": 0, "options": None, "key": None}
    common |= {"blocked": 0, "suspended": None, "attempt": 1, "token": 1, "worker": 1, "attempts": []}
    second = 1_000_000
    done = [
        {**common, "id": id, "state": "done", "started_at": NOW - HOUR, "finished_at": NOW - HOUR + second}
        for id in range(1, 6)
    ]
    running = [
        {**common, "id": id, "state": "running", "started_at": NOW - seconds * second, "finished_at": None}
        for id, seconds in ((6, 30), (7, 600), (8, 3000))
    ]
    store(url, [*done, *running])
    assert all_ids(queue, overdue=True) == [8, 7]
    assert all_ids(queue, overdue=True, sort="longest") == [8, 7]
    assert all_ids(queue, overdue=True, id=7) == [7]
    assert all_ids(queue, overdue=False) == [6, 5, 4, 3, 2, 1]
    assert all_ids(queue, overdue=False, state="running", limit=1) == [6]
    assert all_ids(queue, overdue=True, sort="line") == []


def test_a_search_means_this_queue_unless_it_says_otherwise(queue: TaskQueue) -> None:
    with queue.lane("video") as video:
        one, other = queue.enqueue(1).id, video.enqueue(1).id
        assert all_ids(queue) == [one]
        assert all_ids(video) == [other]
        assert all_ids(queue, all_queues=True) == [other, one]
        assert all_ids(queue, queue=["video", "default"]) == [other, one]


@pytest.mark.engine("sqlite")
def test_a_time_is_turned_into_ids(queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "source", lambda: NOW)
    with cursor(url) as its:
        its.execute("BEGIN")
        its.executemany(
            "INSERT INTO dbtaskqueue_task (id, queue, state, rank, due, due_set_at, created_at)"
            " VALUES (?, 'default', 'pending', 0, 1, 1, ?)",
            [(id, NOW - (60_000 - id) * 1_000_000) for id in range(1, 60_001)],
        )
        its.execute("COMMIT")
    seconds = 50_000
    found = queue.find(created=f">{seconds}s", limit=5)
    assert [task.id for task in found.tasks] == [60_000 - seconds - 1 - n for n in range(5)]
    assert found.scanned <= 2000
    recent = [queue.find(created="10s", priority=7)]
    assert recent[0].complete
    assert recent[0].scanned <= 2000
