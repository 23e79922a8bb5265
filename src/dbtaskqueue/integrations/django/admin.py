"""The admin's pages: tasks and workers, to read, with the actions Retry and Cancel.

Django's ORM filters and counts the rows of a list; what is shown of them comes from the queue, in one query for a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dbtaskqueue import Actor, InvalidTransition, PayloadError, TaskNotFound, TaskState
from dbtaskqueue.checks import counted, escaped

from . import models
from .code import TRIES, last_try
from .lists import ChangeList, FunctionFilter, QueueFilter, StateFilter, shown_queue
from .rendering import as_json, as_table, as_text, as_time

_MOST_AT_ONCE = 1000
"""The most tasks that one action changes: each is a transaction of its own."""
_MOST_ATTEMPTS = 20
_SHOWN_LINE = 200
_RETRIED = {TaskState.FAILED, TaskState.ABANDONED, TaskState.CANCELLED, TaskState.DONE}
_CANCELLED = {TaskState.PENDING, TaskState.FAILED, TaskState.RESERVED, TaskState.RUNNING}


def _without_transaction(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Exempt a view that changes tasks from ``ATOMIC_REQUESTS``.

    The queue writes on a connection of its own. On SQLite, it would wait for the lock that the request's own
    transaction holds, and fail after a minute.
    """
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _last_try(task: Any) -> int | None:
    """Return the attempt from which on an exception is final, None if there is none or it cannot be read."""
    try:
        return last_try(task.live) if task.live else None
    except PayloadError:
        return None


class _ReadOnlyAdmin(admin.ModelAdmin):
    """A list and pages that can be read. ``complete`` adds to objects what their rows do not have."""

    show_full_result_count = False
    list_per_page = 50
    actions_on_bottom = False

    class Media:
        css = {"all": ["dbtaskqueue/admin.css"]}  # noqa: RUF012 (Django's way)

    def complete(self, objects: Sequence[Any]) -> None:
        """Add what the lists and pages show of these objects."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """See Django."""
        return ChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """See Django."""
        queryset: QuerySet[Any] = super().get_queryset(request).using(models.database())
        return queryset

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """See Django."""
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            self.complete([found])
        return found

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: no one adds rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: no one edits rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: no one deletes rows."""
        return False


class TaskAdmin(_ReadOnlyAdmin):
    """Tasks, and what an operator does to them."""

    list_display = ("number", "state_label", "function", "queue", "attempt", "progress", "error_line", "enqueued")
    list_filter = (StateFilter, QueueFilter, FunctionFilter)
    search_fields = ("=id", "=key", "function")
    search_help_text = "an id, a key, or a part of the name of a function"
    actions = ("retry", "cancel")
    fieldsets = (
        (None, {"fields": (("function", "queue"), ("state_label", "progress"), ("attempt", "fails_at"), "reason")}),
        (None, {"fields": ("arguments", "result")}),
        ("Times", {"fields": (("enqueued", "due"), ("started", "finished"))}),
        ("Options", {"fields": (("priority", "key", "limits"), "meta")}),
        ("Attempts", {"fields": ("attempts",)}),
    )

    def complete(self, objects: Sequence[Any]) -> None:
        """Add the queue's ``Task`` to each object, None if it was deleted meanwhile."""
        ids = [task.pk for task in objects]
        found = shown_queue().find(id=ids, all_queues=True, limit=len(ids)).tasks if ids else []
        by_id = {task.id: task for task in found}
        for task in objects:
            task.live = by_id.get(task.pk)

    # -- what is shown -----------------------------------------------------------------------------

    @admin.display(description="id", ordering="id")
    def number(self, task: Any) -> str:
        """Without the separators of ``USE_THOUSAND_SEPARATOR``."""
        return str(task.pk)

    @admin.display(description="state", ordering="state")
    def state_label(self, task: Any) -> SafeString:
        """The state, and whether a cancellation was requested."""
        state = task.live.state if task.live else task.state
        asked = " (cancel requested)" if task.live and task.live.cancel_requested else ""
        return format_html('<span class="task-state task-state-{}">{}</span>{}', state, state, asked)

    @admin.display
    def progress(self, task: Any) -> SafeString | str:
        """A bar if the total is known, and the message."""
        progress = task.live.progress if task.live else None
        if progress is None:
            return "-"
        message = escaped(progress.message or "")
        if not progress.total:
            return format_html('<span class="task-progress">{} {}</span>', f"{progress.done:g}", message)
        return format_html(
            '<span class="task-progress"><progress max="{}" value="{}"></progress> {}/{} {}</span>',
            *(progress.total, progress.done, f"{progress.done:g}", f"{progress.total:g}", message),
        )

    @admin.display
    def attempt(self, task: Any) -> str:
        """How many attempts have started, and from which on an exception is final, unless that has passed."""
        if task.live is None:
            return "-"
        attempt, last = task.live.attempt, _last_try(task)
        return str(attempt) if last is None or attempt > last else f"{attempt}/{last}"

    @admin.display(description="fails at")
    def fails_at(self, task: Any) -> str:
        """The attempts that are final if they raise an exception, or if their worker is lost."""
        if (last := _last_try(task)) is None:
            return "-"
        lost = f"a lost worker in attempt {task.live.max_attempts}"
        return f"an exception in attempt {last}{' or later' if last < task.live.max_attempts else ''}, {lost}"

    @admin.display(description="error")
    def error_line(self, task: Any) -> SafeString | str:
        """The last line of the error."""
        lines = ((task.live and task.live.error) or "").strip().splitlines()
        line = escaped(lines[-1][:_SHOWN_LINE]) if lines else ""
        return format_html('<span class="task-error" title="{}">{}</span>', line, line) if line else ""

    @admin.display
    def reason(self, task: Any) -> SafeString | str:
        """Why the task ended, if no attempt says so: it has expired, or an operator has cancelled it."""
        error = task.live and task.live.error
        return as_text(error) if error and "Traceback" not in error else "-"

    @admin.display
    def arguments(self, task: Any) -> SafeString | str:
        """The payload."""
        return as_json(lambda: task.live.payload) if task.live else "-"

    @admin.display
    def result(self, task: Any) -> SafeString | str:
        """The result of a task that is done."""
        return as_json(lambda: task.live.result) if task.live and task.live.state == TaskState.DONE else "-"

    @admin.display
    def meta(self, task: Any) -> SafeString | str:
        """The JSON object beside the payload."""
        try:
            shown = {name: value for name, value in task.live.meta.items() if name != TRIES} if task.live else {}
        except PayloadError as error:
            return as_text(str(error))
        return as_json(lambda: shown) if shown else "-"

    @admin.display
    def priority(self, task: Any) -> str:
        """Higher comes first."""
        return str(task.live.priority) if task.live else "-"

    @admin.display(ordering="created_at")
    def enqueued(self, task: Any) -> SafeString | str:
        """When it was enqueued."""
        return as_time(task.created_at)

    @admin.display
    def due(self, task: Any) -> SafeString | str:
        """When it is due."""
        return as_time(task.live.start_at) if task.live else "-"

    @admin.display
    def started(self, task: Any) -> SafeString | str:
        """When it was started."""
        return as_time(task.started_at)

    @admin.display
    def finished(self, task: Any) -> SafeString | str:
        """When it reached a final state."""
        return as_time(task.finished_at)

    @admin.display
    def limits(self, task: Any) -> str:
        """The limits of each attempt."""
        live = task.live
        limits = {"time": live.time_limit, "without progress": live.stall_limit} if live else {}
        texts = [f"{name}: {value:g} s" for name, value in limits.items() if value is not None]
        if live and live.memory_limit is not None:
            texts.append(f"memory: {live.memory_limit} bytes")
        return ", ".join(texts) or "-"

    @admin.display
    def attempts(self, task: Any) -> SafeString | str:
        """The newest attempts, the last one first, with their errors and output."""
        found = task.live.attempts(limit=_MOST_ATTEMPTS, output=True) if task.live else []
        return as_table(found)

    # -- what is done ------------------------------------------------------------------------------

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may retry tasks."""
        return request.user.has_perm("dbtaskqueue.retry_task")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel tasks."""
        return request.user.has_perm("dbtaskqueue.cancel_task")

    @admin.action(description="Retry selected tasks", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Run tasks again that have ended."""
        self._act(request, "retry", queryset.values_list("pk", flat=True))

    @admin.action(description="Cancel selected tasks", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Cancel tasks. For running ones, cancellation is requested."""
        self._act(request, "cancel", queryset.values_list("pk", flat=True))

    def _act(self, request: HttpRequest, verb: str, ids: Iterable[int]) -> None:
        """Retry or cancel tasks, and say what was done and what was refused."""
        actor = Actor(request.user.get_username(), "admin")
        wanted = list(ids[: _MOST_AT_ONCE + 1] if isinstance(ids, QuerySet) else ids)
        done, requested, refused = 0, 0, []
        for id in wanted[:_MOST_AT_ONCE]:
            try:
                if verb == "retry":
                    shown_queue().retry(id, actor=actor)
                    done += 1
                elif shown_queue().cancel(id, actor=actor):
                    done += 1
                else:
                    requested += 1
            except (InvalidTransition, TaskNotFound) as error:
                refused.append(str(error))
        if done:
            ended = "due again" if verb == "retry" else "cancelled"
            messages.success(request, f"{counted(done)} {'is' if done == 1 else 'are'} {ended}.")
        if requested:
            messages.info(request, f"Cancellation of {counted(requested, 'running task')} was requested.")
        if refused:
            messages.warning(request, f"{counted(len(refused))} did not change: {escaped(refused[0])}")
        if len(wanted) > _MOST_AT_ONCE:
            messages.warning(request, f"Only {_MOST_AT_ONCE} tasks were changed. Run the action again for the rest.")

    def get_urls(self) -> list[URLPattern]:
        """Add the addresses of the buttons of a task's page."""
        buttons = [
            path(
                f"<int:id>/{verb}/",
                self.admin_site.admin_view(self._button(verb)),
                name=f"{self.opts.app_label}_{self.opts.model_name}_{verb}",
            )
            for verb in ("retry", "cancel")
        ]
        return [*buttons, *super().get_urls()]

    def _button(self, verb: str) -> Callable[..., HttpResponse]:
        @_without_transaction
        def press(request: HttpRequest, id: int) -> HttpResponse:
            if request.method != "POST":
                return HttpResponseNotAllowed(["POST"])
            if not (self.has_view_permission(request) and getattr(self, f"has_{verb}_permission")(request)):
                raise PermissionDenied
            if not self.get_queryset(request).filter(pk=id).exists():
                raise Http404
            self._act(request, verb, [id])
            return HttpResponseRedirect(reverse(f"{self.admin_site.name}:dbtaskqueue_task_change", args=[id]))

        return press

    @_without_transaction
    def changelist_view(self, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the list, or run an action."""
        return super().changelist_view(*args, **kwargs)

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show a task, with buttons for what can be done to it."""
        response = super().change_view(request, object_id, *args, **kwargs)
        data = getattr(response, "context_data", None)
        live = getattr(data and data.get("original"), "live", None)
        if data is not None and live is not None:
            data["task_buttons"] = [
                (verb, label)
                for verb, label, states in (("retry", "Retry", _RETRIED), ("cancel", "Cancel", _CANCELLED))
                if live.state in states and getattr(self, f"has_{verb}_permission")(request)
            ]
        return response


class WorkerAdmin(_ReadOnlyAdmin):
    """Live workers, and those that were lost within the last day."""

    list_display = ("number", "host", "pid_text", "state", "executor", "queues", "holds", "started")
    fields = (("host", "pid_text"), ("state", "lost_at"), ("executor", "queues"), ("holds", "lease", "started"))
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """See Django."""
        return super().get_queryset(request).filter(pk__in=[worker.id for worker in shown_queue().workers()])

    def complete(self, objects: Sequence[Any]) -> None:
        """Add the queue's ``WorkerInfo`` to each object, None if it has ended meanwhile."""
        by_id = {worker.id: worker for worker in shown_queue().workers()}
        for worker in objects:
            worker.live = by_id.get(worker.pk)

    @admin.display(description="id", ordering="id")
    def number(self, worker: Any) -> str:
        """Without the separators of ``USE_THOUSAND_SEPARATOR``."""
        return str(worker.pk)

    @admin.display(description="process", ordering="pid")
    def pid_text(self, worker: Any) -> str:
        """The process id."""
        return str(worker.pid)

    @admin.display
    def state(self, worker: Any) -> str:
        """``alive`` or ``lost``."""
        return worker.live.state if worker.live else "ended"

    @admin.display
    def queues(self, worker: Any) -> str:
        """The queues and patterns that it serves."""
        return (", ".join(worker.live.queues or []) if worker.live else "") or "-"

    @admin.display(description="tasks held")
    def holds(self, worker: Any) -> str:
        """How many tasks it holds."""
        return str(worker.live.holds) if worker.live else "0"

    @admin.display
    def lease(self, worker: Any) -> str:
        """Seconds without a heartbeat until it counts as lost."""
        return f"{worker.live.lease:g} s" if worker.live else "-"

    @admin.display(ordering="created_at")
    def started(self, worker: Any) -> SafeString | str:
        """When it was started."""
        return as_time(worker.created_at)

    @admin.display(description="lost")
    def lost_at(self, worker: Any) -> SafeString | str:
        """When it was marked lost."""
        return as_time(worker.live.lost_at if worker.live else None)


if models.database() is not None:
    admin.site.register(models.Task, TaskAdmin)
    admin.site.register(models.Worker, WorkerAdmin)
