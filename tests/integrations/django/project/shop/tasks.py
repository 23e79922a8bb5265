import os
import pathlib
import time

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.db.models import F
from django.tasks import task

from dbtaskqueue import current_task
from shop.models import Order


@task
def write_receipt(order_id):
    """Use the ORM in a transaction, as tasks do."""
    order = Order.objects.get(id=order_id)
    order.receipt = f"Receipt for {order.address}"
    order.save()
    Order.objects.filter(id=order_id).update(runs=F("runs") + 1)
    return {"order": order_id, "length": len(order.receipt)}


@task
async def write_receipt_async(order_id):
    order = await Order.objects.aget(id=order_id)
    order.receipt = f"Receipt for {order.address}"
    await order.asave()
    return {"order": order_id, "pid": os.getpid()}


@task(queue_name="mail")
def add_receipts(numbers):
    """Write receipts for several orders, with progress and output."""
    for number, order_id in enumerate(numbers, start=1):
        print("receipt", order_id)
        current_task().progress(number, len(numbers), "receipts")


@task
def wait_for_file(name, order_id=None):
    """Tell that it runs, and wait until a file exists: what tests kill, drain and reload."""
    here = pathlib.Path(settings.BASE)
    attempt = current_task().attempt
    here.joinpath(f"{name}.started.{attempt}.{os.getpid()}").touch()
    while not here.joinpath(name).exists():
        time.sleep(0.05)
    if order_id is not None:
        Order.objects.filter(id=order_id).update(receipt=f"attempt {attempt}", runs=F("runs") + 1)
    return attempt


meeting = {}
"""Two events: what tasks of one process wait for."""


@task
async def read_slowly():
    """Read orders in steps, and let ``read_quickly`` run and end between two of them."""
    numbers = []
    async for order in Order.objects.order_by("id").aiterator(chunk_size=1):
        numbers.append(order.id)
        meeting["reading"].set()
        await sync_to_async(meeting["done"].wait, thread_sensitive=False)(60)
    return numbers


@task
async def count_later():
    """Count orders after ``read_quickly`` has ended."""
    meeting["reading"].set()
    await sync_to_async(meeting["done"].wait, thread_sensitive=False)(60)
    return await Order.objects.acount()


@task
async def read_quickly(breaks=False):
    await sync_to_async(meeting["reading"].wait, thread_sensitive=False)(60)
    if breaks:
        await Order.objects.acount()
        await sync_to_async(lambda: connection.connection.close())()  # as a server does that is restarted
    return await Order.objects.acount()


@task
def refuse(message):
    raise ValueError(message)


@task(takes_context=True)
def describe(context, *args):
    """Say where it runs."""
    return {"attempt": context.attempt, "pid": os.getpid(), "vendor": connection.vendor, "version": VERSION}


@task
def chain(depth):
    """Enqueue another one."""
    if depth:
        chain.enqueue(depth - 1)
    return depth


VERSION = 1


@task
def fail_until(number):
    """Raise a KeyError in all attempts before this one."""
    attempt = current_task().attempt
    if attempt < number:
        raise KeyError(attempt)
    return attempt


def three_times(error, attempt):
    """Decide when to try again."""
    return 0 if attempt < 3 else None


def refuse_patiently():
    raise ValueError("no")


patient = task(refuse_patiently).using(backoff=three_times)  # in Django 6.0, @task takes no options of the backend
