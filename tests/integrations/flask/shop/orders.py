"""The views, and the tasks."""

from __future__ import annotations

import os
from typing import Any

from flask import Blueprint, abort, current_app, request

from .models import Order, db
from .queues import mails, tasks

routes = Blueprint("shop", __name__)


@tasks.task(name="charge")
def charge(order: int) -> list[Any]:
    db.session.get_one(Order, order).state = "charged"
    db.session.commit()
    receipt.enqueue(order)
    return [current_app.name, os.getpid(), os.getppid()]


@mails.task(name="receipt")
def receipt(order: int) -> str:
    return f"receipt of {order} from {current_app.config['DBTASKQUEUE_QUEUE']}"


@routes.post("/orders")
def order() -> dict[str, Any]:
    """Store an order and its task in one transaction. It is rolled back if the request says so."""
    new = Order()
    db.session.add(new)
    db.session.flush()
    task = charge.using(connection=db.session).enqueue(new.id)
    if "refuse" in request.args:
        abort(409)
    db.session.commit()
    return {"order": new.id, "task": task.id, "process": os.getpid()}
