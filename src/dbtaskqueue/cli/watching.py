"""The command watch: what goes on in a database, on a screen that is drawn again and again, or as lines on a pipe."""

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
from .looks import Look, Looker, plain
from .options import checked, json_option, one_queue_option, open_queue, url_option
from .output import console, json_line, note
from .queues import refuse_unknown
from .screen import changes, screen

if TYPE_CHECKING:
    from rich.console import Console

_SHORTEST = 0.1
_GLANCE = 0.2
"""Seconds until a key, a new size or a new look shows on the screen, at the most."""
_REDRAW = 1.0
_SILENCE = 3.0
"""Seconds over which a look is late when it is said so."""
_REST = 4.0
"""How many times as long as a look took it waits for the next: a database that is slow is not asked all the time."""
_LEAVING = 1.0
"""Seconds that a look has to end when somebody leaves."""
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
    lane = open_queue(url)
    refuse_unknown(lane.store, queue)
    display = console()
    on_screen = display.is_terminal and not display.is_dumb_terminal and not json
    watcher = _Watcher(Looker(lane, queue, with_ends=not on_screen), interval)
    try:
        if on_screen:
            _on_screen(watcher, display, mask(lane.url))
        else:
            _on_pipe(watcher, _whole if json else changes)
    except KeyboardInterrupt:
        pass
    finally:
        if watcher.leave():
            lane.close()


class _Watcher(threading.Thread):
    """Looks in a thread of its own, so that a database that does not answer keeps nobody from leaving."""

    def __init__(self, looker: Looker, interval: float) -> None:
        super().__init__(daemon=True)
        self._looker = looker
        self._interval = interval
        self._leaves = threading.Event()
        self._since = time.monotonic()
        self._gone: str | None = None
        self.changed = threading.Event()
        self.look: Look | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        while not self._leaves.is_set():
            started = time.monotonic()
            try:
                self.look = self._looker.look()
                self._gone, self._since = None, time.monotonic()
            except StoreUnavailable as gone:
                self._gone = str(gone)
            except BaseException as error:
                self.error = error
                return
            finally:
                self.changed.set()
            took = time.monotonic() - started
            self._leaves.wait(max(self._interval - took, _REST * took))

    @property
    def trouble(self) -> str:
        """What keeps it from seeing how things are; empty if nothing does."""
        silent = time.monotonic() - self._since
        if self._gone is not None:
            return f"database unavailable for {silent:.0f} s, retrying: {self._gone}"
        return f"the database has not answered for {silent:.0f} s" if silent > self._interval + _SILENCE else ""

    def leave(self) -> bool:
        """Look no more; whether it is not in the middle of a look that does not end."""
        self._leaves.set()
        if self.ident is not None:
            self.join(_LEAVING)
        return not self.is_alive()


# -- a pipe ----------------------------------------------------------------------------------------


def _whole(before: Look | None, look: Look) -> list[str]:
    return [json_line(plain(look))]


def _on_pipe(watcher: _Watcher, told: Callable[[Look | None, Look], list[str]]) -> None:
    before: Look | None = None
    is_away = False
    watcher.start()
    while True:
        watcher.changed.wait()
        watcher.changed.clear()
        if watcher.error is not None:
            raise watcher.error
        look, trouble = watcher.look, watcher.trouble
        if is_away != bool(trouble):
            note(trouble or "database available again")
            is_away = bool(trouble)
        if look is not None and look is not before:
            for line in told(before, look):
                click.echo(line)
            before = look


# -- a screen --------------------------------------------------------------------------------------


class _Asked:
    """What a signal has asked for: to end, or to stand still for a while."""

    to_stop = False

    def end(self, number: int, frame: FrameType | None) -> NoReturn:
        """Leave as a program does that the signal kills, but with the terminal as it was."""
        raise SystemExit(128 + number)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-Z: the shell must find its terminal as it was."""
        self.to_stop = True


def _on_screen(watcher: _Watcher, display: Console, title: str) -> None:
    with contextlib.suppress(AttributeError):  # a stand-in for stdout may lack it
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    asked = _Asked()
    with _signals(asked):
        watcher.start()
        while not _drawing(watcher, display, title, asked):
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # here it stands still, until SIGCONT
            signal.signal(signal.SIGTSTP, asked.stop)
            asked.to_stop = False


@contextlib.contextmanager
def _signals(asked: _Asked) -> Iterator[None]:
    before = {number: signal.signal(number, asked.end) for number in _ENDING}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, asked.stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Where single keys can be read from, unseen; None where stdin is no terminal."""
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


def _drawing(watcher: _Watcher, display: Console, title: str, asked: _Asked) -> bool:
    """Draw until somebody leaves; False where it is only to stand still. The terminal is as before then."""
    from rich.live import Live
    from rich.text import Text

    with _keys() as keyboard, Live(console=display, screen=True, auto_refresh=False) as live:
        drawn: tuple[object, ...] = ()
        while not asked.to_stop:
            if watcher.error is not None:
                raise watcher.error
            size, look, trouble = display.size, watcher.look, watcher.trouble
            state = (size, look, trouble, int(time.monotonic() / _REDRAW))
            if state != drawn:
                trouble = trouble or ("" if look else "reading …")
                words = {"title": title, "key": "Ctrl-C" if keyboard is None else "q", "trouble": trouble}
                lines = screen(look, size.width, size.height, now=clock.now(), **words)
                live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)
                drawn = state
            if keyboard is None:
                time.sleep(_GLANCE)
            elif _is_to_leave(keyboard):
                return True
    return False


def _is_to_leave(keyboard: int) -> bool:
    if not select.select([keyboard], [], [], _GLANCE)[0]:
        return False
    pressed = os.read(keyboard, 1024)
    return not pressed or bool(set(b"qQ\x04") & set(pressed))  # nothing: the terminal is gone
