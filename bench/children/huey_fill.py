"""Enqueue tasks for huey's consumer; the environment is that of ``huey_tasks.py``."""

from huey_tasks import expected, noop

for number in range(expected):
    noop({"url": f"http://example.com/{number}", "number": number})
print("null")
