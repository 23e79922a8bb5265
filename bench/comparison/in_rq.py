"""The two-hour task in RQ."""

from rq import get_current_job
from work import work


def two_hours():
    """Report progress in the job's ``meta``."""
    job = get_current_job()

    def tell(second):
        job.meta["second"] = second
        job.save_meta()

    return work(tell)
