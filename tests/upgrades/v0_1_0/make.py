"""Make the test data of version 0.1.0: a database for each engine, and what that version reads in it.

    .venv/bin/python tests/upgrades/v0_1_0/make.py

It takes the program from the tag v0.1.0, fills a database on each engine with it, and writes ``ENGINE.sql``. Then it
loads each file into an empty database, reads that with the same program, and writes ``expected.json``, once for all
engines. The clock is set to fixed times. What differs from run to run (processes, measurements, this machine's names)
is replaced by fixed values, so a second run writes the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
VERSION = "0.1.0"
ENGINES = ("sqlite", "postgresql", "mariadb")
FIRST = 1_709_280_000_000_000
"""2024-03-01 08:00 UTC in microseconds since 1970."""
FAR = datetime(2100, 1, 1, tzinfo=UTC)
NEVER_SILENT = 1e9
"""Seconds of a lease during which no test takes the tasks."""
WITHIN = 60.0

DAMAGED = {
    "damaged": {"policy": '{"delay": 1', "limits": '{"time": 60'},
    "damaged in another way": {"policy": "[1]", "limits": "7"},
    "damaged in a third way": {"policy": '{"delay": "soon"}', "limits": '{"time": "soon"}'},
}
"""Payloads of tasks that get columns which cannot be read. Such a task has the default policy, and no limits."""

Rows = dict[str, list[dict[str, Any]]]


# -- filling a database, with the released program -------------------------------------------------


class Story:
    """What happens in the database, at times that are set by hand."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.names: dict[str, int] = {}
        self.kept: list[Any] = []
        self.now = FIRST
        self.pass_time(0)

    def pass_time(self, seconds: float) -> None:
        """Set the clock of this process, and of the child processes that its next worker starts."""
        self.now += round(seconds * 1e6)
        os.environ[app.TIME] = str(self.now)
        clock.source = lambda: self.now

    def queue(self, name: str, **options: Any) -> TaskQueue:
        return TaskQueue(self.url, name, **options)

    def add(self, name: str, queue: TaskQueue, payload: Any = None, **options: Any) -> Task:
        """Enqueue a task and give it a name for the tests."""
        self.pass_time(1)
        task = queue.enqueue(payload, **options)
        self.names[name] = task.id
        return task

    def claim(self, task: Task, queue: TaskQueue) -> Task:
        """Fetch the task, when it is due."""
        self.now = max(self.now, round(task.refresh().start_at.timestamp() * 1e6))
        self.pass_time(1)
        [held] = queue.fetch(timeout=0)
        assert held.id == task.id, (held, task)
        return held

    def attempt(self, task: Task, queue: TaskQueue) -> Task:
        """Fetch and start the task."""
        held = self.claim(task, queue)
        self.pass_time(1)
        assert held.start()
        self.pass_time(20)
        return held

    def fail(self, task: Task, queue: TaskQueue, times: int = 1) -> None:
        for number in range(times):
            self.attempt(task, queue).fail(f"no answer to request {number + 1}")

    def lose(self, task: Task, queue: TaskQueue) -> None:
        """Start the task in a process that dies; then rescue it from another process."""
        self.now = max(self.now, round(task.refresh().start_at.timestamp() * 1e6))
        self.die("die", queue.name)
        rescue(self.url, queue.name)

    def die(self, how: str, queue: str) -> None:
        """Run a process that dies. This process's clock is 30 s later, since it may rescue the tasks at any time."""
        environment = {**os.environ, app.TIME: str(self.now)}
        self.pass_time(30)
        line = [sys.executable, __file__, how, self.url, queue]
        subprocess.run(line, check=True, timeout=WITHIN, env=environment)

    def run(self, queue: TaskQueue, callback: Callable[[Any], Any], **options: Any) -> None:
        """Run one task of the queue in a worker."""
        self.pass_time(1)
        Worker(queue, **options).run(callback, burst=True, max_tasks=1)
        self.pass_time(20)


def fill(url: str) -> None:
    """Tell the story; print the rows that it leaves, and the names of the tasks."""
    story = Story(url)
    for chapter in (waiting, steps, ended, isolated, paused, commands, purged):
        chapter(story)
    held(story)
    dead_batch(story)
    shipment = story.kept[0].store.export(0, 10_000)
    json.dump({"rows": shipment.rows, "highest": shipment.highest, "names": story.names}, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # what this process holds stays held


def waiting(story: Story) -> None:
    """Make tasks that wait: new, failed and released ones, with every option."""
    with story.queue("waiting") as queue:
        # In this order, no other task is due while one waits for its next attempt.
        story.fail(story.add("failed seven times", queue, {"n": 7}), queue, 7)
        policy = RetryPolicy(delay=100, linear=2, factor=3, max_delay=1000, max_attempts=4)
        story.fail(story.add("failed three of four times", queue, "policy", retry=policy), queue, 3)
        released = story.add("released", queue, ["a", "b"])
        story.claim(released, queue).release(5)
        story.attempt(released, queue).release(3000)
        retried = story.add("failed, retried and failed", queue, key="retried", max_attempts=3)
        story.fail(retried, queue, 2)
        retried.cancel()
        queue.retry(retried.id)
        story.fail(retried, queue)
        story.fail(story.add("failed without end", queue, retry=RetryPolicy(500, 1, 1.5, 2000, 0, None)), queue)
        story.lose(story.add("lost once", queue, "lost once"), queue)

        story.add("plain", queue, "hello")
        story.add("high priority", queue, {"text": "Grüße, 世界 🙂", "quote": 'it\'s "so" \\ 100 %'}, priority=5)
        story.add("low priority", queue, [1, -2, 2**63 - 1, -(2**63), 1.5, 1e300, True, None], priority=-32768)
        story.add("due a minute later", queue, "later", start_in=60)
        story.add("due in the past", queue, "earlier", start_at=datetime(2024, 1, 1, tzinfo=UTC))
        story.add("no payload", queue)
        story.add("line breaks", queue, "a\nb;\nc\t'd'\\")
        story.add("large payload", queue, {"text": "payload; " * 200})
        story.add("with a policy", queue, retry=RetryPolicy(timedelta(minutes=2), 1, 4.0, 1e6, 0.0, 7))
        story.add("with a number of attempts", queue, max_attempts=1)
        story.add("with a key", queue, key="invoice: 7 “ü”")
        limits = {"time_limit": 3600, "stall_limit": 90.5, "memory_limit": 2**31}
        story.add("with limits", queue, **limits)
        story.add("with a time limit", queue, time_limit=timedelta(hours=2))
        story.add("with a policy and limits", queue, retry=RetryPolicy(7, factor=1.5, max_attempts=None), **limits)
        for name in DAMAGED:
            story.add(name, queue, name)
        story.add("due in the future", queue, "future", start_at=FAR, priority=7, key="future")
        story.pass_time(1)
        thumbnail = queue.task(name="thumbnail", max_attempts=3, priority=2)(app.thumbnail)
        story.names["function"] = thumbnail.enqueue("a.png", width=640).id
        story.add("cancelled", queue, key="free again").cancel()


def steps(story: Story) -> None:
    """Make a task that has stored steps and a checkpoint."""
    with story.queue("steps") as queue:
        story.add("with a checkpoint", queue, {"file": "café.csv"})
        story.run(queue, app.import_rows)


def ended(story: Story) -> None:
    """Make finished tasks, with each outcome."""
    with story.queue("ended") as queue:
        story.add("done", queue, {"id": 1}, key="done")
        story.run(queue, app.report, executor="process")
        story.add("done with a text", queue)
        story.run(queue, app.lines)
        story.add("done with a large result", queue)
        story.run(queue, app.long_result)
        story.add("done without a result", queue)
        story.run(queue, lambda payload: None)
        again = story.add("failed, then done", queue, "again")
        story.fail(again, queue, 2)
        story.claim(again, queue).release()
        story.run(queue, app.report, executor="process")
        thumbnail = queue.task(name="thumbnail", priority=-3)(app.thumbnail)
        story.names["function done"] = thumbnail.enqueue("b.png").id
        story.pass_time(1)
        Worker(queue).run(burst=True)
        story.add("abandoned", queue, {"to": "nobody"}, max_attempts=1)
        story.run(queue, app.fail, executor="process")
        story.attempt(story.add("abandoned at once", queue), queue).fail("no such account", retry=False)
        revived = story.add("abandoned and retried", queue, max_attempts=2)
        story.fail(revived, queue, 2)
        queue.retry(revived.id)
        story.fail(revived, queue, 1)
        story.attempt(revived, queue).finish({"after": 4})
        story.pass_time(1)
        story.add("cancelled early", queue, key="cancelled", start_at=FAR).cancel()
        stopped = story.attempt(story.add("cancelled while it ran", queue), queue)
        queue.cancel(stopped.id)
        story.pass_time(2)
        stopped.fail("stopped on request")
        lost = story.add("abandoned as lost", queue, max_attempts=1)
        story.lose(lost, queue)
    with story.queue("again") as queue:
        repeated = story.add("done and retried", queue, {"again": True}, retry=RetryPolicy(30, max_attempts=5))
        story.fail(repeated, queue)
        story.pass_time(30)
        story.run(queue, app.long_result)
        assert repeated.refresh().state == "done"
        queue.retry(repeated.id)


def isolated(story: Story) -> None:
    """Make tasks of a batch whose worker died; they are already rescued."""
    with story.queue("isolated") as queue:
        for number in range(4):
            story.add(f"isolated {number}", queue, number)
        story.die("die-in-batch", queue.name)
    rescue(story.url, "isolated")
    with story.queue("isolated") as queue:
        for number in range(4, 8):
            story.add(f"not isolated {number}", queue, number)


def paused(story: Story) -> None:
    """Make a paused queue, and one that was paused and resumed."""
    with story.queue("paused") as queue, story.queue("resumed") as resumed:
        story.add("in a paused queue", queue, "waits")
        queue.pause()
        resumed.pause()
        story.add("in a resumed queue", resumed, "goes")
        resumed.resume()


def commands(story: Story) -> None:
    """Make tasks that are command lines."""
    with story.queue("commands") as queue:
        argv = ["sh", "-c", "echo $COLOUR; echo ::progress 3/10 files"]
        for name in ("command done", "command"):
            story.pass_time(1)
            story.names[name] = queue.enqueue_command(argv, env={"COLOUR": "red"}, cwd="/", time_limit=60).id
        story.run(queue, app.report, executor="process", allow_commands=True)
        story.add("not a command", queue, "plain", priority=-1)


def purged(story: Story) -> None:
    """Make a task that a purge abandoned while it ran."""
    with story.queue("purged") as queue:
        held = story.attempt(story.add("purged", queue, key="purged"), queue)
        queue.purge()
        with contextlib.suppress(LeaseLost):
            held.finish()


def held(story: Story) -> None:
    """Make tasks that are held. From here on, the process closes no queue."""
    stay = story.kept
    silent = story.queue("lost", lease=1.0)
    stay.append(silent)
    retried = story.add("lost twice", silent, retry=RetryPolicy(100, max_attempts=5))
    story.lose(retried, silent)
    stay.append(story.attempt(retried, silent))
    stay.append(story.attempt(story.add("lost", silent, {"lost": 1}), silent))
    stay.append(story.attempt(story.add("lost at the last attempt", silent, max_attempts=1), silent))
    stopped = story.attempt(story.add("lost and to be cancelled", silent), silent)
    silent.cancel(stopped.id)
    stay.append(stopped)
    stay.append(story.claim(story.add("reserved by the lost worker", silent, key="reserved"), silent))

    without_row = story.queue("orphaned")
    stay.append(story.attempt(story.add("orphaned", without_row, "no row"), without_row))
    stay.append(without_row)

    live = story.queue("held", lease=NEVER_SILENT)
    for name in ("running", "running and to be cancelled", "suspended"):
        story.add(name, live, name, priority=1)
    threading.Thread(
        target=lambda: Worker(live, concurrency=3, executor="process", cancel_grace=600).run(app.stay), daemon=True
    ).start()
    until(lambda: all(task.progress for task in live.tasks()))
    live.cancel(story.names["running and to be cancelled"])
    live.suspend(story.names["suspended"])
    until(lambda: all(task.attempts()[0].output and live.store.get(task.id).usage for task in live.tasks()))
    fetching = story.queue("held", lease=NEVER_SILENT)
    stay.append(fetching)
    story.pass_time(1)
    pending = fetching.task(name="no_such_function")(app.thumbnail).enqueue("c.png")
    stay.append(story.claim(story.add("reserved", fetching, priority=1), fetching))
    story.names["of an unknown function"] = pending.id
    stay.append(story.attempt(story.add("running in a program", fetching, priority=1), fetching))


def dead_batch(story: Story) -> None:
    """Make a batch that will be lost. The story ends here, since its worker releases waiting tasks after a second."""
    queue = story.queue("batch", lease=1.0)
    for number in range(4):
        story.add(f"in the dead batch {number}", queue, number)
    running = threading.Event()

    def block(payload: Any) -> None:
        running.set()
        threading.Event().wait()

    ahead(story)
    threading.Thread(target=lambda: Worker(queue).run(block, batch=4), daemon=True).start()
    assert running.wait(WITHIN)


def ahead(story: Story) -> None:
    """Make the newest task, with a time in the future, since the clock was ahead. A newer one was pruned."""
    story.add("enqueued with the clock ahead", story.queue("ahead"), "ahead")
    with story.queue("pruned") as queue:
        story.attempt(story.add("pruned", queue), queue).finish("gone")
        queue.prune(0)
    del story.names["pruned"]


def rescue(url: str, queue: str) -> None:
    """Wait until the tasks of dead workers are rescued."""
    with TaskQueue(url, queue) as rescuer:
        until(lambda: rescuer._membership.look() or not rescuer.stats().running + rescuer.stats().reserved)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def die(url: str, queue: str) -> None:
    """Start the queue's first task and exit without cleaning up."""
    clock.source = lambda: int(os.environ[app.TIME])
    [task] = TaskQueue(url, queue).fetch(timeout=WITHIN)
    assert task.start()
    os._exit(0)


def die_in_batch(url: str, queue: str) -> None:
    """Exit without cleaning up in the first task of a batch."""
    clock.source = lambda: int(os.environ[app.TIME])
    Worker(url, queue).run(lambda payload: os._exit(0), batch=4)


def expect(url: str) -> None:
    """Print what the tests read in a loaded database."""
    found: dict[str, Any] = {"tasks": [], "queues": {}, "workers": read_workers(url), "order": {}, "delays": {}}
    with TaskQueue(url) as queue:
        names = queue.store.queues()
    for name in names:
        with TaskQueue(url, name) as queue:
            found["tasks"] += map(read_task, queue.tasks(limit=1000))
            found["queues"][name] = read_queue(queue)
    found["tasks"].sort(key=lambda task: task["id"])
    for name in ("waiting", "ended", "again", "steps", "isolated", "paused", "resumed", "commands"):
        with TaskQueue(url, name) as queue:
            due = queue.fetch(100, timeout=0)
            found["order"][name] = [task.id for task in due]
            found["delays"] |= {str(task.id): delay_after_failure(task) for task in due}
    json.dump(found, sys.stdout)


# -- writing the files -----------------------------------------------------------------------------


def adjusted(rows: Rows) -> Rows:
    """Replace what differs between runs or identifies this machine; move the workers to another place."""
    orphan = next(task["worker"] for task in rows["task"] if task["queue"] == "orphaned")
    rows["worker"] = [worker for worker in rows["worker"] if worker["id"] != orphan]
    for worker in rows["worker"]:
        number = worker["id"]
        worker |= {"host": "worker1.example", "pid": 4000 + number, "started": 8000 + number, "beat": 40 + number}
        worker |= {"boot": "7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11", "namespace": "pid:[4026531836]"}
    damaged = {json.dumps(payload): columns for payload, columns in DAMAGED.items()}
    for task in rows["task"]:
        if task["queue"] == "ahead":  # not in the story, whose workers would notice that the clock is set back
            task["due"] = task["decided_at"] = task["created_at"] = round(FAR.timestamp() * 1e6)
        task |= damaged.get(task["payload"], {})
    for measured in (*rows["task"], *rows["attempt"]):
        if measured["cpu"] is not None:
            measured["cpu"] = 250_000
        if measured["memory"] is not None:
            measured["memory"] = 31_457_280
    for note in rows["note"]:
        if note["name"] == "usage":
            note["value"] = '{"memory": 52428800, "cpu": 12.5, "processes": 1}'
        if note["name"] == "progress":
            done, total, message, _ = json.loads(note["value"])
            note["value"] = json.dumps([done, total, message, 4.5 if total == 10 else None])
    text = json.dumps(rows).replace(str(HERE), "/srv/app")
    text = re.sub(
        r"the worker (\d+) \(process \d+ on [^)]*\)",
        lambda found: f"the worker {found[1]} (process {4000 + int(found[1])} on worker1.example)",
        text,
    )
    for foreign in (socket.gethostname(), str(TESTS), str(Path.home())):
        assert not re.search(rf"\b{re.escape(foreign)}\b", text), foreign
    adjusted: Rows = json.loads(text)
    for table, columns in ORDER.items():
        adjusted[table].sort(key=lambda row: [row[column] for column in columns])
    return adjusted


ORDER = {
    "queue": ("name",),
    "worker": ("id",),
    "task": ("id",),
    "large": ("task", "name"),
    "note": ("task", "token", "name"),
    "attempt": ("task", "token"),
}


def dump(engine: str, statements: str, rows: Rows, highest: int) -> str:
    """Write a database as SQL: the statements of ``migrate --sql``, and the rows."""
    quote = "`" if engine == "mariadb" else '"'
    schema = '"dbtaskqueue".' if engine == "postgresql" else ""
    parts = [f"-- A database of dbtaskqueue {VERSION} on {engine}, written by make.py.\n"]
    if engine == "sqlite":
        parts.append("PRAGMA journal_mode = WAL;\n")
    parts.append(statements)
    for table in ORDER:
        names = list(rows[table][0])
        columns = ", ".join(f"{quote}{name}{quote}" for name in names)
        values = ",\n".join(f"({', '.join(literal(engine, row[name]) for name in names)})" for row in rows[table])
        parts.append(f"INSERT INTO {schema}dbtaskqueue_{table}\n({columns}) VALUES\n{values};\n")
    if engine == "sqlite":
        parts.append(f"UPDATE dbtaskqueue_pruned SET highest = {highest};\n")
    elif engine == "mariadb":
        parts.append(f"ALTER TABLE dbtaskqueue_task AUTO_INCREMENT = {highest + 1};\n")
    else:
        for table, last in (("task", highest), ("worker", rows["worker"][-1]["id"])):
            parts.append(f"SELECT setval(pg_get_serial_sequence('{schema}dbtaskqueue_{table}', 'id'), {last});\n")
    return "\n".join(parts)


def literal(engine: str, value: object) -> str:
    """Write a value in SQL, on one line if the engine knows escapes."""
    if value is None:
        return "NULL"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value).replace("'", "''")
    if engine == "sqlite":
        return f"'{text}'"
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return f"{'E' if engine == 'postgresql' else ''}'{text}'"


@contextlib.contextmanager
def empty(engine: str) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if engine == "sqlite":
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite:///{directory}/taskqueue.sqlite"
    elif engine == "postgresql":
        with fresh_postgresql_url() as url:
            yield url
    else:
        with fresh_mariadb_url() as url:
            yield url


def main() -> None:
    """Write all files."""
    with tempfile.TemporaryDirectory() as directory:
        program = extract_program(VERSION, Path(directory))
        environment = {**os.environ, "PYTHONPATH": f"{program}:{TESTS}"}

        def released(*line: str) -> str:
            done = subprocess.run(
                [sys.executable, *line], env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            return done.stdout

        first: dict[str, Any] = {}
        for engine in ENGINES:
            with empty(engine) as url:
                statements = released("-m", "dbtaskqueue", "--url", url, "migrate", "--sql")
                if engine == "postgresql":
                    statements = re.sub(r'"t_[0-9a-f]+"', '"dbtaskqueue"', statements)
                filled = json.loads(released(__file__, "fill", url))
            rows = adjusted(filled["rows"])
            dump_of(VERSION, engine).write_text(dump(engine, statements, rows, filled["highest"]))
            with empty(engine) as url:
                load(url, VERSION)
                found = json.loads(released(__file__, "expect", url))
            found = {"highest": filled["highest"], "names": filled["names"], **found}
            first = first or found
            for name, value in first.items():
                assert value == found[name], (engine, name, *differences(value, found[name]))
    (HERE / "expected.json").write_text(as_text(first))


def differences(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what differs between two lists, or two dictionaries."""
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, list):
        return (pair for pair in zip(one, other, strict=False) if pair[0] != pair[1])
    return iter([(one, other)])


def as_text(expected: dict[str, Any]) -> str:
    """Write JSON with a line for each task."""
    lines = []
    for name, value in expected.items():
        if isinstance(value, list):
            inner = ",\n".join(json.dumps(each, ensure_ascii=False) for each in value)
            lines.append(f'"{name}": [\n{inner}\n]')
        else:
            lines.append(f'"{name}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if len(sys.argv) > 1:
    import app
    from upgrades.reading import delay_after_failure, read_queue, read_task, read_workers

    from dbtaskqueue import LeaseLost, RetryPolicy, Task, TaskQueue, Worker, clock
else:
    sys.path[:0] = [str(TESTS), str(TESTS.parent / "src")]
    from servers.shared import fresh_mariadb_url, fresh_postgresql_url
    from upgrades.released import dump_of, extract_program, load

if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"fill": fill, "expect": expect, "die": die, "die-in-batch": die_in_batch}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
