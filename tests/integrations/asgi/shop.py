"""A FastAPI application whose requests store a row and a task in one transaction of an ``AsyncSession``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from starlette.requests import Request

from dbtaskqueue import AsyncTask, AsyncTaskQueue, current_task
from dbtaskqueue.following import Following
from dbtaskqueue.integrations.starlette import task_router

TABLE = os.environ.get("SHOP_TABLE", "orders")
sessions = async_sessionmaker(create_async_engine(os.environ.get("SHOP_DATABASE", "sqlite+aiosqlite://")))
queue = AsyncTaskQueue(queue="shop")
Queue = Annotated[AsyncTaskQueue, Depends(queue)]


@queue.task
async def pack(number: int) -> dict[str, int]:
    """Pack an order."""
    current_task().progress(1, 1, "packed")
    return {"order": number, "pid": os.getpid()}


@queue.task
async def wait_for(name: str) -> str:
    """Report progress until a file exists."""
    seconds = 0
    while not Path(name).exists():
        current_task().progress(seconds, None, "waiting")
        seconds += 1
        await asyncio.sleep(0.05)
    return "seen"


def is_theirs(request: Request, task: AsyncTask[Any]) -> bool:
    """Return whether the client has enqueued the task."""
    return task.meta.get("user") == request.headers.get("user")


if "SHOP_DRAIN" in os.environ:
    lifespan = queue.lifespan_with_worker(concurrency=4, drain_timeout=float(os.environ["SHOP_DRAIN"]))
else:
    lifespan = queue.lifespan
app = FastAPI(lifespan=lifespan)
app.mount("/tasks", task_router(queue, check=is_theirs))


@app.post("/orders/{number}", status_code=202)
async def order(number: int, queue: Queue, user: str = "ann", sold_out: bool = False) -> dict[str, int]:
    """Store an order and enqueue its packing, both or none."""
    async with sessions.begin() as session:
        await session.execute(text(f"INSERT INTO {TABLE} VALUES (:number)"), {"number": number})
        task = await pack.using(connection=session, meta={"user": user}).enqueue(number)
        assert (await queue.get(task.id, connection=session)).payload == task.payload
        if sold_out:
            raise HTTPException(409, "sold out")
    return {"id": task.id}


@app.post("/files/{name}", status_code=202)
async def file(name: str, user: str = "ann") -> dict[str, int]:
    """Enqueue a task that waits for a file."""
    return {"id": (await wait_for.using(meta={"user": user}).enqueue(name)).id}


@app.get("/orders/{id}/result")
async def result(id: int, queue: Queue) -> dict[str, Any]:
    """Wait for a task."""
    task = await queue.get(id)
    return {"result": await task.get_result(timeout=60)}


@app.get("/followers")
async def followers() -> int:
    """Return how many tasks this process follows."""
    return len(Following.on(queue.sync.store)._followers)
