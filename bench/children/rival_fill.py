"""Enqueue tasks of ``rival_tasks.py``. Arguments: "huey", or the URL of a Redis server for RQ; number of tasks."""

import sys

import rival_tasks

kind, number = sys.argv[1], int(sys.argv[2])
payloads = [{"url": f"http://example.com/{each}", "number": each} for each in range(number)]
if kind == "huey":
    for payload in payloads:
        rival_tasks.noop_of_huey(payload)
else:
    from redis import Redis
    from rq import Queue

    queue = Queue("bench", connection=Redis.from_url(kind))
    queue.enqueue_many([Queue.prepare_data("rival_tasks.noop", (payload,)) for payload in payloads])
print("null")
