"""The two-hour task in procrastinate, as a function, a coroutine, and a coroutine that blocks.

RETRY=3 allows three retries; RECIPE=1 retries tasks whose worker was lost.
"""

import asyncio
import os

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import JobAborted
from work import HOUR, say, work

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))
retry = int(os.environ.get("RETRY", "0"))


@app.task(name="function", retry=retry, pass_context=True)
def function(context):
    """Check whether the task should stop."""

    def tell(second):
        if context.should_abort():
            say("aborted")
            raise JobAborted

    return work(tell)


@app.task(name="coroutine", retry=retry)
async def coroutine():
    """Run without blocking the worker's event loop."""
    say("starts")
    await asyncio.sleep(2 * HOUR)
    say("ends")


@app.task(name="blocking", retry=retry)
async def blocking():
    """Block the worker's event loop."""
    work()


if "RECIPE" in os.environ:

    @app.periodic(cron="* * * * * */10")
    @app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)
    async def retry_stalled(context, timestamp):
        """Follow the recipe in procrastinate's documentation."""
        for job in await app.job_manager.get_stalled_jobs():
            say(f"retries job {job.id}")
            await app.job_manager.retry_job(job)
