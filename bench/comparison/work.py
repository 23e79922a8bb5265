"""The two-hour task of docs/lab-reports.md, with an hour scaled down to 20 seconds. Each run writes to work.log."""

import os
import time

HOUR = 20


def say(text: str) -> None:
    """Write a log line with the time and the process."""
    with open("work.log", "a") as log:
        log.write(f"{time.strftime('%H:%M:%S')} process {os.getpid()} {text}\n")


def work(tell=lambda second: None, start: int = 0) -> str:
    """Run until the end of the two hours, starting at this second; call ``tell`` with each second."""
    say(f"starts at {start}")
    for second in range(start, 2 * HOUR):
        time.sleep(1)
        tell(second + 1)
        if (second + 1) % 10 == 0:
            say(f"at {second + 1}")
    say("ends")
    return "done"
