"""Routes about tasks, for the users of a Starlette or FastAPI application: state, progress, events, cancel.

::

    app.mount("/tasks", task_router(queue, check=is_theirs))
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from .._formats.progress import Progress
from ..aio import AsyncTask, AsyncTaskQueue
from ..errors import InvalidTransition, StoreUnavailable, TaskNotFound, TaskQueueError
from ..states import FINAL, RUNNING, TaskState
from . import missing

try:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route, Router
except ImportError as error:
    raise missing("fastapi", error) from None

Check = Callable[[Request, AsyncTask[Any]], "bool | Awaitable[bool]"]

_KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment is sent: proxies close connections that are silent for a minute."""
_RETRY = 1.0
"""Seconds after which a stream reads its task again while the database is unavailable."""
_LONGEST_ID = 19


def task_router(queue: AsyncTaskQueue, *, check: Check | None = None, public: bool = False) -> Router:
    """Return routes about the tasks of this queue, to be mounted: ``app.mount("/tasks", task_router(queue, …))``.

    - ``GET /{id}``: the task as JSON: id, state, attempt, progress, result, and times. It has no texts of errors.
    - ``GET /{id}/events``: the same as server-sent events, whenever the state or the progress changes. The last one
      has the name "end".
    - ``POST /{id}/cancel``: cancel the task, or request it if it is running. Returns the task; 409 if it has ended.

    ``check(request, task)``, plain or ``async def``, returns whether the client may see and cancel the task. Ids are
    easy to guess. If it returns false, the answer is 404, as for a task that does not exist. It may also raise an
    exception of your framework, such as HTTPException. ``public=True``: everyone may see and cancel all tasks. Raises
    TypeError without either, or with both.
    """
    if not isinstance(queue, AsyncTaskQueue):
        raise TypeError(f"queue must be an AsyncTaskQueue, not {type(queue).__name__}")
    if (check is None) != public:
        raise TypeError(
            "pass check=, a function of the request and the task that returns whether the client may see and cancel the"
            " task, or public=True: then anyone who guesses an id may do so"
        )
    routes = _Routes(queue, check)
    paths = [
        ("/{id}", routes.show, "GET"),
        ("/{id}/events", routes.events, "GET"),
        ("/{id}/cancel", routes.cancel, "POST"),
    ]
    return Router(
        [  # Litestar appends a slash to the path
            Route(path + slash, endpoint, methods=[method]) for path, endpoint, method in paths for slash in ("", "/")
        ]
    )


class _Routes:
    def __init__(self, queue: AsyncTaskQueue, check: Check | None) -> None:
        self._queue = queue
        self._check = check

    async def show(self, request: Request) -> Response:
        return await self._respond(request, _answer)

    async def cancel(self, request: Request) -> Response:
        async def cancel(task: AsyncTask[Any]) -> Response:
            await task.cancel()
            return await _answer(task)

        return await self._respond(request, cancel)

    async def events(self, request: Request) -> Response:
        return await self._respond(request, _stream)

    async def _respond(self, request: Request, act: Callable[[AsyncTask[Any]], Awaitable[Response]]) -> Response:
        """Return what ``act`` returns for the task that the path names, if the client may see it."""
        try:
            task = await self._task(request)
            return _refusal(404, "there is no such task") if task is None else await act(task)
        except TaskNotFound:
            return _refusal(404, "there is no such task")
        except InvalidTransition as error:
            return _refusal(409, str(error))
        except StoreUnavailable:
            return _refusal(503, "the task queue is unavailable")

    async def _task(self, request: Request) -> AsyncTask[Any] | None:
        id = request.path_params["id"]
        if not (id.isascii() and id.isdigit() and len(id) <= _LONGEST_ID):
            return None
        task = await self._queue.get(int(id))
        if task.queue != self._queue.name:
            return None
        if self._check is not None:
            allowed = self._check(request, task)
            if not (await allowed if inspect.isawaitable(allowed) else allowed):
                return None
        return task


def _refusal(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status, {"cache-control": "no-store"})


async def _answer(task: AsyncTask[Any]) -> Response:
    return JSONResponse(_shown(task), headers={"cache-control": "no-store"})


async def _stream(task: AsyncTask[Any]) -> Response:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # the latter is for nginx
    return StreamingResponse(_events(task), media_type="text/event-stream", headers=headers)


def _shown(task: AsyncTask[Any]) -> dict[str, Any]:
    """Return what a client sees of a task. An error's text could show it what it must not see."""
    return {
        "id": task.id,
        "state": task.state,
        "attempt": task.attempt,
        "progress": None if task.progress is None else _shown_progress(task.progress, task.state),
        "result": task.result,
        "created_at": _iso(task.created_at),
        "started_at": _iso(task.started_at),
        "finished_at": _iso(task.finished_at),
    }


def _shown_progress(progress: Progress, state: TaskState) -> dict[str, Any]:
    """Return the progress. The ``eta`` of an attempt that has ended means nothing."""
    return (progress if state == RUNNING else progress._replace(eta=None))._asdict()


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


async def _events(task: AsyncTask[Any]) -> AsyncIterator[str]:
    """Yield server-sent events until the task has ended or is pruned, and comments while nothing happens.

    The stream does not end while the database is unavailable: browsers would ask again, and give up at the answer 503.
    """
    updates, sent = task.follow(), ""
    update: asyncio.Future[Any] | None = None
    try:
        while True:
            update = asyncio.ensure_future(anext(updates, None))
            while not (await asyncio.wait([update], timeout=_KEEP_ALIVE))[0]:
                yield ": the task has not changed\n\n"
            try:
                seen = update.result()
            except StoreUnavailable:
                yield ": the database is unavailable\n\n"
                await asyncio.sleep(_RETRY)
                updates = task.follow()
                continue
            except TaskQueueError:
                return
            if seen is None:
                return
            name = "event: end\n" if task.state in FINAL else ""
            message = f"{name}data: {json.dumps(_shown(task), separators=(',', ':'))}\n\n"
            if message != sent:  # a new state and new progress are two updates, and one message has both
                yield message
                sent = message
    finally:
        if update is not None:
            update.cancel()
            with contextlib.suppress(asyncio.CancelledError, TaskQueueError):
                await update
