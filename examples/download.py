"""Fetch pages into files, one task for each; a URL that fails is retried later.

python examples/download.py enqueue http://example.com/ example.com.html
python examples/download.py work
"""

import sys
import urllib.request
from pathlib import Path

from dbtaskqueue import TaskQueue, Worker

URL = "sqlite:///mytaskqueue.sqlite"


def download(payload):
    with urllib.request.urlopen(payload["url"], timeout=60) as response:
        Path(payload["target"]).write_bytes(response.read())
    return {"status": "OK", **payload}


if __name__ == "__main__":
    if sys.argv[1:2] == ["enqueue"]:
        queue = TaskQueue(URL, queue="http.fetch")
        task = queue.enqueue({"url": sys.argv[2], "target": sys.argv[3]})
        print("Submitted task", task.id)
    else:
        Worker(URL, queue="http.fetch").run(download)
