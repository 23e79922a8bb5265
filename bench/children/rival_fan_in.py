"""Enqueue jobs for RQ, and one that depends on all of them. Arguments: URL of a Redis server, number of jobs."""

import sys

import rival_tasks
from redis import Redis
from rq import Queue

queue = Queue("bench", connection=Redis.from_url(sys.argv[1]))
payloads = [{"url": f"http://example.com/{each}", "number": each} for each in range(int(sys.argv[2]))]
jobs = queue.enqueue_many([Queue.prepare_data("rival_tasks.noop", (payload,)) for payload in payloads])
queue.enqueue(rival_tasks.noop, {"number": -1}, depends_on=jobs)
print("null")
