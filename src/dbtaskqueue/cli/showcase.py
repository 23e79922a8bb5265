"""A small company's tasks, for looking at the dashboard: several queues, long tasks, failures, schedules, dependencies.

``dbtaskqueue demo --dashboard`` runs it. The functions pretend to work: they sleep, print and report progress.
"""

from __future__ import annotations

import contextlib
import math
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click

from .._formats import buckets
from .._formats.payload import JSON
from .._store.contract import HistoryRecord, SampleRecord
from .._system import clock
from ..current import current_task
from ..queue import TaskQueue
from ..retry import RetryPolicy
from .demo import end, environment, spawn

queue = TaskQueue(None, "media", open=False)
"""The queue whose functions the demo's workers run. Its database comes from the command line."""

_CITIES = ("Lisbon", "Oslo", "Vienna", "Porto", "Tallinn", "Ghent")
_FILMS = ("harbour-at-dawn", "night-train", "salt-flats", "glasshouse", "the-long-field", "river-delta")


@queue.task(name="video.download")
def download(film: str, seconds: float = 5) -> JSON:
    """Pretend to download a film."""
    task = current_task()
    for part in range(20):
        task.progress(part, 20, "archive.example")
        time.sleep(seconds / 20)
    return {"film": film, "bytes": 734_003_200, "sha256": "9f2c4e"}


@queue.task(name="video.encode", memory_limit=2 << 30, time_limit=7200)
def encode(film: str, preset: str = "h265-4k", seconds: float = 240, source: JSON = None) -> JSON:
    """Pretend to encode a film, with a step, checkpoints and output."""
    task = current_task()
    task.step("probe", lambda: {"width": 3840, "height": 2160, "frames": 3600, "audio": ["en", "pt"]})
    task.step("crop", lambda: {"top": 276, "bottom": 276})
    first: Any = task.saved or 0
    cache = bytearray(random.randrange(20, 90) << 20)
    for scene in range(int(first), 120):
        task.progress(scene * 30, 3600, f"scene {scene + 1} of 120")
        print(f"frame={scene * 30:>6} fps={random.uniform(11, 14):.1f} q=27.0 size={scene * 410:>8}KiB", flush=True)
        spin(seconds / 120, 0.6)
        if scene % 5 == 4:
            task.checkpoint(scene + 1)
    return {"film": film, "preset": preset, "size": 1_288_490_188, "cache": len(cache)}


@queue.task(name="video.publish")
def publish(film: str, encoded: JSON = None) -> JSON:
    """Pretend to publish a film."""
    time.sleep(1)
    return {"url": f"https://films.example/{film}"}


@queue.task(name="mail.send", max_attempts=4, retry=RetryPolicy(delay=20))
def send_mail(to: str, template: str) -> JSON:
    """Pretend to send a mail. Some servers do not answer."""
    time.sleep(random.uniform(0.05, 0.4))
    if to.endswith("@slow.example"):
        raise TimeoutError(f"no answer from mx.slow.example within 10 s, for {to}")
    if to.endswith("@gone.example"):
        raise ConnectionRefusedError("[Errno 111] Connection refused: mx.gone.example:25")
    return {"message_id": f"{random.getrandbits(48):x}@mail.example"}


@queue.task(name="reports.monthly")
def report(city: str, month: str = "2026-10", seconds: float = 90) -> JSON:
    """Pretend to make a report, page by page."""
    task = current_task()
    pages = 48
    for page in range(int(task.saved or 0), pages):
        task.progress(page, pages, f"{city}, page {page + 1}")
        print(f"{city}: page {page + 1}: {random.randrange(900, 4000)} rows", flush=True)
        time.sleep(seconds / pages)
        task.checkpoint(page + 1)
    return {"city": city, "pages": pages}


@queue.task(name="search.reindex")
def reindex(shard: int, seconds: float = 400) -> None:
    """Pretend to index documents, without a known end."""
    task = current_task()
    for count in range(int(seconds)):
        task.progress(count * 1731, None, f"shard {shard}")
        spin(1, 0.2)


@queue.task(name="payments.settle", max_attempts=1)
def settle(batch: int) -> JSON:
    """Pretend to settle payments. One bank is down."""
    time.sleep(0.2)
    if batch % 3 == 0:
        raise RuntimeError(f"bank answered 503 for batch {batch}")
    return {"batch": batch, "settled": 120}


def spin(seconds: float, share: float) -> None:
    """Use this share of a CPU for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        until = time.monotonic() + 0.02 * share
        while time.monotonic() < until:
            pass
        time.sleep(0.02 * (1 - share))


_MINUTE, _TEN_MINUTES = 60_000_000, 600_000_000
_BUSY = (("mail", "mail.send", 84, 0.3), ("reports", "reports.monthly", 6, 90.0), ("media", "video.encode", 3, 240.0))
"""Queues and functions with a past: how many attempts end in ten busy minutes, and the seconds of each."""
WORKERS = (
    ("--queue", "media", "--concurrency", "2", "--drain-timeout", "0"),
    ("--queue", "mail", "--concurrency", "2", "--drain-timeout", "0"),
    ("--queue", "reports", "--concurrency", "3", "--drain-timeout", "0"),
)
"""The options of each of the demo's workers. No worker serves the queues imports and billing."""


def play(port: int) -> None:
    """Seed a temporary database, start workers and a dashboard, and wait for Ctrl-C."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with tempfile.TemporaryDirectory(prefix="dbtaskqueue-demo-") as directory, contextlib.ExitStack() as stack:
        url = f"sqlite:///{directory}/demo.sqlite"
        with TaskQueue(url, "media"):
            queue.open(url)
            seed(queue)
            queue.close()
        program = [sys.executable, "-P", "-m", "dbtaskqueue", "--url", url]
        log = stack.enter_context(open(Path(directory, "log"), "wb"))
        processes = [spawn([*program, "worker", f"{__name__}:queue", *options], directory, log) for options in WORKERS]
        stack.callback(_end_all, processes)
        click.echo("Tasks of a small company: films, mails, reports and payments. Ctrl-C ends it and removes it all.")
        server = subprocess.Popen(
            [*program, "dashboard", "--port", str(port)], cwd=directory, env=environment(), process_group=0
        )
        processes.append(server)
        while not stopped.wait(0.2) and server.poll() is None:
            pass
    if server.returncode and not stopped.is_set():
        raise SystemExit(server.returncode)


def _end_all(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        end(process)


def seed(media: TaskQueue) -> None:
    """Store tasks and schedules in a new database."""
    mail, reports, billing = media.lane("mail"), media.lane("reports"), media.lane("billing")
    _past(media)
    _films(media)
    for number in range(14):
        host = ("example.org", "slow.example", "example.net", "gone.example")[number % 4]
        send_mail.using(queue="mail").enqueue(f"user{number}@{host}", template="welcome")
    send_mail.using(queue="mail", start_in=7200, key="newsletter-44").enqueue("all@example.org", template="newsletter")
    for city in _CITIES:
        report.using(queue="reports", priority=5 if city == "Oslo" else 0).enqueue(city)
    reindex.using(queue="reports", priority=9).enqueue(shard=3)
    for batch in range(1, 9):
        settle.using(queue="billing" if batch > 4 else "mail").enqueue(batch)
    billing.pause()
    media.lane("imports").enqueue({"path": "/srv/in/customers-2026-11.csv", "rows": 48_211}, priority=2)
    cancelled = mail.enqueue({"to": "press@example.org", "template": "embargo"}, start_in=600)
    cancelled.cancel()
    mail.schedule("newsletter-preview", send_mail.bind("editor@example.org", "preview"), every=7)
    mail.schedule("digest", send_mail.bind("digest@slow.example", "digest"), every=45)
    reports.schedule("monthly", report.bind("Lisbon"), cron="0 6 1 * *", timezone="Europe/Lisbon")
    media.schedule("nightly-encode", encode.bind("night-train", "h264-1080p"), cron="30 2 * * *")


def _past(media: TaskQueue) -> None:
    """Make up what a day's attempts did, so that charts are not empty: busy by day, with a bad hour."""
    now = clock.now()
    rows: list[HistoryRecord] = []
    samples: list[SampleRecord] = []
    hour = now // _TEN_MINUTES * _TEN_MINUTES - 6 * _TEN_MINUTES
    steps = [(600, hour - step * _TEN_MINUTES) for step in range(1, 23 * 6)]
    steps += [(60, at) for at in range(hour, now - _MINUTE, _MINUTE)]
    for period, at in steps:
        step = (now - at) / _TEN_MINUTES
        load = (0.55 + 0.45 * math.sin(step / 23) + random.uniform(-0.1, 0.1)) * period / 600
        is_bad = 40 <= step <= 47
        for queue_name, function, most, seconds in _BUSY:
            done = max(0, round(most * load))
            failed = round(done * 0.6) if is_bad and queue_name == "mail" else done // 40
            rows.append(
                HistoryRecord(
                    *(period, at, 0, queue_name, function, done, failed),
                    seconds=round(done * seconds * 1e6),
                    cpu=round(done * seconds * 4e5),
                    memory=90 << 20,
                    run_times=_bucketed(seconds, done),
                    wait_times=_bucketed(40 if is_bad else 0.4 + load, done),
                )
            )
            waiting = round(most * load * (0.8 if is_bad else 0.2))
            samples.append(SampleRecord(period, at, queue_name, waiting, failed, 0, min(3, done), 0, None, 1))
    media.store.write_history(rows)
    media.store.write_samples(samples)


def _bucketed(seconds: float, number: int) -> str:
    counts = [0] * buckets.SIZE
    for attempt in range(number):
        counts[buckets.index_of(round(seconds * random.uniform(0.6, 1.6 if attempt % 20 else 6) * 1e6))] += 1
    return buckets.encode(counts)


def _films(media: TaskQueue) -> None:
    for film in _FILMS[:3]:
        with media.flow() as flow:
            source = flow.add(download.bind(film, seconds=4))
            encoded = flow.add(encode.bind(film, source=source))
            flow.add(publish.bind(film, encoded=encoded))
    for film in _FILMS[3:]:
        encode.using(priority=-1, key=f"encode-{film}").enqueue(film)
