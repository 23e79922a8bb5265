"""The two-hour task of docs/lab-reports.md, an hour scaled down to 20 seconds; work.log tells what each run did."""

import os
import time

HOUR = 20


def say(text: str) -> None:
    """Write a line with the time and the process."""
    with open("work.log", "a") as log:
        log.write(f"{time.strftime('%H:%M:%S')} process {os.getpid()} {text}\n")


def work(tell=lambda second: None, start: int = 0) -> str:
    """Run for two hours from where it was; ``tell`` hears of each second."""
    say(f"starts at {start}")
    for second in range(start, 2 * HOUR):
        time.sleep(1)
        tell(second + 1)
        if (second + 1) % 10 == 0:
            say(f"at {second + 1}")
    say("ends")
    return "done"
