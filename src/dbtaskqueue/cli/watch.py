"""The command watch: a live screen of what happens in a database, or lines on a pipe."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from .._formats.quantities import seconds
from .._formats.url import mask
from .._system import clock
from ..errors import StoreUnavailable
from ..monitoring.snapshot import Monitor, Snapshot, to_plain
from .options import checked, json_option, one_queue_option, open_queue, url_option
from .output import console, json_line, note
from .queues import refuse_unknown
from .screen import changes, screen

if TYPE_CHECKING:
    from rich.console import Console

_SHORTEST = 0.1
_POLL = 0.2
"""The most seconds until a key, a new window size or a new snapshot takes effect."""
_REDRAW = 1.0
_LATE = 3.0
"""Seconds after which a late snapshot causes a warning."""
_PAUSE_FACTOR = 4.0
"""The pause after a snapshot is at least this many times as long as the snapshot took, to spare a slow database."""
_QUITTING = 1.0
"""Seconds to wait for a snapshot in progress when the user quits."""
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def _interval(text: str) -> float:
    found = seconds(text)
    if found < _SHORTEST:
        raise ValueError(f"invalid interval {text!r}: must be at least {_SHORTEST} s")
    return found


@click.command()
@click.option(
    "--interval",
    metavar="DURATION",
    default="1s",
    callback=checked(_interval),
    help="Time between updates.",
)
@one_queue_option
@json_option
@url_option
@click.pass_obj
def watch(url: str | None, interval: float, queue: str | None, json: bool) -> None:
    """Watch queues, workers, running tasks and failures.

    On a terminal, it shows a live screen; press q to quit. On a pipe, it prints one line for each change. With --json,
    it prints an object with the complete state for each update.
    """
    task_queue = open_queue(url)
    refuse_unknown(task_queue.store, queue)
    display = console()
    on_screen = display.is_terminal and not display.is_dumb_terminal and not json
    watcher = _Watcher(Monitor(task_queue.store, queue, with_ended=not on_screen), interval)
    try:
        if on_screen:
            _on_screen(watcher, display, mask(task_queue.url))
        else:
            _on_pipe(watcher, _json_lines if json else changes)
    except KeyboardInterrupt:
        pass
    finally:
        if watcher.stop():
            task_queue.close()


class _Watcher(threading.Thread):
    """Takes snapshots in its own thread, so that the user can quit while the database does not answer."""

    def __init__(self, monitor: Monitor, interval: float) -> None:
        super().__init__(daemon=True)
        self._monitor = monitor
        self._interval = interval
        self._stopping = threading.Event()
        self._since = time.monotonic()
        self._unavailable: str | None = None
        self.changed = threading.Event()
        self.snapshot: Snapshot | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self.snapshot = self._monitor.snapshot()
                self._unavailable, self._since = None, time.monotonic()
            except StoreUnavailable as error:
                self._unavailable = str(error)
            except BaseException as error:
                self.error = error
                return
            finally:
                self.changed.set()
            took = time.monotonic() - started
            self._stopping.wait(max(self._interval - took, _PAUSE_FACTOR * took))

    @property
    def warning(self) -> str:
        """Return why the snapshot is out of date; "" if it is not."""
        silent = time.monotonic() - self._since
        if self._unavailable is not None:
            return f"database unavailable for {silent:.0f} s, retrying: {self._unavailable}"
        return f"the database has not answered for {silent:.0f} s" if silent > self._interval + _LATE else ""

    def stop(self) -> bool:
        """Take no more snapshots. Return False if one is still in progress."""
        self._stopping.set()
        if self.ident is not None:
            self.join(_QUITTING)
        return not self.is_alive()


# -- a pipe ----------------------------------------------------------------------------------------


def _json_lines(before: Snapshot | None, snapshot: Snapshot) -> list[str]:
    return [json_line(to_plain(snapshot))]


def _on_pipe(watcher: _Watcher, lines_of: Callable[[Snapshot | None, Snapshot], list[str]]) -> None:
    before: Snapshot | None = None
    is_unavailable = False
    watcher.start()
    while True:
        watcher.changed.wait()
        watcher.changed.clear()
        if watcher.error is not None:
            raise watcher.error
        snapshot, warning = watcher.snapshot, watcher.warning
        if is_unavailable != bool(warning):
            note(warning or "database available again")
            is_unavailable = bool(warning)
        if snapshot is not None and snapshot is not before:
            for line in lines_of(before, snapshot):
                click.echo(line)
            before = snapshot


# -- a screen --------------------------------------------------------------------------------------


class _Signals:
    """The handlers of signals, which restore the terminal before the process ends or stops."""

    to_stop = False

    def end(self, number: int, frame: FrameType | None) -> NoReturn:
        """Exit with the code of a program that the signal killed."""
        raise SystemExit(128 + number)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle Ctrl-Z: note that the process must stop."""
        self.to_stop = True


def _on_screen(watcher: _Watcher, display: Console, title: str) -> None:
    with contextlib.suppress(AttributeError):  # an object that replaces stdout may have no such method
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    signals = _Signals()
    with _handlers(signals):
        watcher.start()
        while not _draw_until_quit(watcher, display, title, signals):
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # the process stops here, until SIGCONT
            signal.signal(signal.SIGTSTP, signals.stop)
            signals.to_stop = False


@contextlib.contextmanager
def _handlers(signals: _Signals) -> Iterator[None]:
    before = {number: signal.signal(number, signals.end) for number in _ENDING}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signals.stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Yield the descriptor to read single keys from, without echo; None if stdin is not a terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _draw_until_quit(watcher: _Watcher, display: Console, title: str, signals: _Signals) -> bool:
    """Draw until the user quits. Return False if the process must stop. Always restores the terminal."""
    from rich.live import Live
    from rich.text import Text

    with _keys() as keyboard, Live(console=display, screen=True, auto_refresh=False) as live:
        drawn: tuple[object, ...] = ()
        while not signals.to_stop:
            if watcher.error is not None:
                raise watcher.error
            size, snapshot, warning = display.size, watcher.snapshot, watcher.warning
            state = (size, snapshot, warning, int(time.monotonic() / _REDRAW))
            if state != drawn:
                warning = warning or ("" if snapshot else "reading …")
                words = {"title": title, "key": "Ctrl-C" if keyboard is None else "q", "warning": warning}
                lines = screen(snapshot, size.width, size.height, now=clock.now(), **words)
                live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)
                drawn = state
            if keyboard is None:
                time.sleep(_POLL)
            elif _is_quit_pressed(keyboard):
                return True
    return False


def _is_quit_pressed(keyboard: int) -> bool:
    if not select.select([keyboard], [], [], _POLL)[0]:
        return False
    pressed = os.read(keyboard, 1024)
    return not pressed or bool(set(b"qQ\x04") & set(pressed))  # EOF: the terminal was closed
