"""What forms and programs may do."""

from __future__ import annotations

from starlette.responses import Response

from .auth import Refused
from .call import Call


def _not_yet(call: Call) -> Response:
    raise Refused(501, "not built yet")


cancel = retry = suspend = continue_ = reschedule = delete = start_operation = stop_operation = _not_yet
pause_queue = resume_queue = purge_queue = prune_queue = set_retention = _not_yet
run_schedule = pause_schedule = resume_schedule = set_quota = enqueue = _not_yet
