"""The admin's pages: tasks and workers, to read, with the actions Retry and Cancel.

Django's ORM filters and counts the rows of a list; what is shown of them comes from the queue, in one query for a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.tasks import task_backends
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import localtime

from dbtaskqueue import Actor, Attempt, InvalidTransition, PayloadError, TaskNotFound, TaskQueue, TaskState
from dbtaskqueue.checks import counted, escaped

from . import models

_MOST_AT_ONCE = 1000
"""The most tasks that one action changes: each is a transaction of its own."""
_MOST_ATTEMPTS = 20
_SHOWN_TEXT = 20_000
_RETRIED = {TaskState.FAILED, TaskState.ABANDONED, TaskState.CANCELLED, TaskState.DONE}
_CANCELLED = {TaskState.PENDING, TaskState.FAILED, TaskState.RESERVED, TaskState.RUNNING}


def _queue() -> TaskQueue:
    """Return the queue of the backend that the admin shows."""
    found = models.shown_backend()
    assert found is not None
    queue: TaskQueue = task_backends[found[0]].queue
    return queue


class _ChangeList(ChangeList):
    """A page of a list, whose objects are completed by the queue."""

    def get_results(self, request: HttpRequest) -> None:
        """See Django."""
        super().get_results(request)
        self.result_list: Any = list(self.result_list)
        self.model_admin.complete(self.result_list)


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
        return _ChangeList

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
        """Nobody adds rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits rows."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes rows."""
        return False


class _StateFilter(admin.SimpleListFilter):
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unfinished", "unfinished"), *((str(state), str(state)) for state in TaskState)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "unfinished":
            return queryset.filter(finished_at=None)
        return queryset.filter(state=self.value()) if self.value() else queryset


class _QueueFilter(admin.SimpleListFilter):
    """The queues of all backends. To read them from the table would read all of it."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = {name for backend in task_backends.all() for name in backend.queues}
        return [(name, name) for name in sorted({*names, *filter(None, [self.value()])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(queue=self.value()) if self.value() else queryset


class _FunctionFilter(admin.SimpleListFilter):
    """The task functions of this project."""

    title = parameter_name = "function"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted({*_queue().functions.names(), *filter(None, [self.value()])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(function=self.value()) if self.value() else queryset


class TaskAdmin(_ReadOnlyAdmin):
    """Tasks, and what an operator does to them."""

    list_display = ("number", "state_label", "function", "queue", "progress", "attempts", "error_line", "created_at")
    list_filter = (_StateFilter, _QueueFilter, _FunctionFilter)
    search_fields = ("=id", "=key", "function")
    search_help_text = "an id, a key, or a part of the name of a function"
    actions = ("retry", "cancel")
    fieldsets = (
        (None, {"fields": ("function", "queue", "state_label", "progress", "attempts", "arguments", "result")}),
        ("Times", {"fields": ("created_at", "due", "started_at", "finished_at")}),
        ("Options", {"fields": ("priority", "key", "meta", "limits")}),
        ("Attempts", {"fields": ("last_error", "attempt_table")}),
    )

    def complete(self, objects: Sequence[Any]) -> None:
        """Add the queue's ``Task`` to each object, None if it was deleted meanwhile."""
        ids = [task.pk for task in objects]
        found = _queue().find(id=ids, all_queues=True, limit=len(ids)).tasks if ids else []
        by_id = {task.id: task for task in found}
        for task in objects:
            task.live = by_id.get(task.pk)

    # -- what is shown -----------------------------------------------------------------------------

    @admin.display(description="id", ordering="id")
    def number(self, task: Any) -> str:
        return str(task.pk)  # without the separators of USE_THOUSAND_SEPARATOR

    @admin.display(description="state", ordering="state")
    def state_label(self, task: Any) -> SafeString:
        state = task.live.state if task.live else task.state
        asked = " (cancel requested)" if task.live and task.live.cancel_requested else ""
        return format_html('<span class="task-state task-state-{}">{}</span>{}', state, state, asked)

    @admin.display(empty_value="")
    def progress(self, task: Any) -> SafeString | None:
        progress = task.live.progress if task.live else None
        if progress is None:
            return None
        message = escaped(progress.message or "")
        if not progress.total:
            return format_html('<span class="task-progress">{} {}</span>', f"{progress.done:g}", message)
        return format_html(
            '<span class="task-progress"><progress max="{}" value="{}"></progress> {}/{} {}</span>',
            *(progress.total, progress.done, f"{progress.done:g}", f"{progress.total:g}", message),
        )

    @admin.display
    def attempts(self, task: Any) -> str | None:
        if task.live is None:
            return None
        return (
            str(task.live.attempt)
            if task.live.max_attempts is None
            else f"{task.live.attempt}/{task.live.max_attempts}"
        )

    @admin.display(description="error", empty_value="")
    def error_line(self, task: Any) -> SafeString | None:
        lines = ((task.live and task.live.error) or "").strip().splitlines()
        return format_html('<span class="task-error">{}</span>', escaped(lines[-1][:200])) if lines else None

    @admin.display(description="error")
    def last_error(self, task: Any) -> SafeString | None:
        return _text(task.live.error) if task.live and task.live.error else None

    @admin.display
    def arguments(self, task: Any) -> SafeString | None:
        return _json(lambda: task.live.payload) if task.live else None

    @admin.display
    def result(self, task: Any) -> SafeString | None:
        return _json(lambda: task.live.result) if task.live and task.live.state == TaskState.DONE else None

    @admin.display
    def meta(self, task: Any) -> SafeString | None:
        return _json(lambda: task.live.meta) if task.live and task.live.meta else None

    @admin.display
    def priority(self, task: Any) -> str | None:
        return str(task.live.priority) if task.live else None

    @admin.display
    def due(self, task: Any) -> datetime | None:
        return task.live.start_at if task.live else None

    @admin.display
    def limits(self, task: Any) -> str | None:
        live = task.live
        limits = {"time": live.time_limit, "without progress": live.stall_limit} if live else {}
        texts = [f"{name}: {value:g} s" for name, value in limits.items() if value is not None]
        if live and live.memory_limit is not None:
            texts.append(f"memory: {live.memory_limit} bytes")
        return ", ".join(texts) or None

    @admin.display(description="attempts")
    def attempt_table(self, task: Any) -> SafeString | None:
        if task.live is None:
            return None
        attempts = task.live.attempts(limit=_MOST_ATTEMPTS, output=True)
        rows = format_html_join("", "{}", ([_row(attempt)] for attempt in reversed(attempts)))
        head = mark_safe("<tr><th>number</th><th>started</th><th>ended</th><th>outcome</th><th>worker</th></tr>")
        return format_html('<table class="task-attempts">{}{}</table>', head, rows) if attempts else None

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
        """Cancel tasks. Running ones are asked to stop."""
        self._act(request, "cancel", queryset.values_list("pk", flat=True))

    def _act(self, request: HttpRequest, verb: str, ids: Iterable[int]) -> None:
        """Retry or cancel tasks, and say what was done and what was refused."""
        actor = Actor(request.user.get_username(), "admin")
        wanted = list(ids[: _MOST_AT_ONCE + 1] if isinstance(ids, QuerySet) else ids)
        done, requested, refused = 0, 0, []
        for id in wanted[:_MOST_AT_ONCE]:
            try:
                if verb == "retry":
                    _queue().retry(id, actor=actor)
                    done += 1
                elif _queue().cancel(id, actor=actor):
                    done += 1
                else:
                    requested += 1
            except (InvalidTransition, TaskNotFound) as error:
                refused.append(str(error))
        if done:
            ended = "due again" if verb == "retry" else "cancelled"
            messages.success(request, f"{counted(done)} {'is' if done == 1 else 'are'} {ended}.")
        if requested:
            messages.info(request, f"{counted(requested, 'running task')} will be asked to stop.")
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

    list_display = ("number", "host", "pid_text", "state", "executor", "queues", "holds", "created_at")
    fields = ("host", "pid_text", "state", "executor", "queues", "holds", "lease", "created_at", "lost_at")
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """See Django."""
        return super().get_queryset(request).filter(pk__in=[worker.id for worker in _queue().workers()])

    def complete(self, objects: Sequence[Any]) -> None:
        """Add the queue's ``WorkerInfo`` to each object, None if it has ended meanwhile."""
        by_id = {worker.id: worker for worker in _queue().workers()}
        for worker in objects:
            worker.live = by_id.get(worker.pk)

    @admin.display(description="id", ordering="id")
    def number(self, worker: Any) -> str:
        return str(worker.pk)

    @admin.display(description="process", ordering="pid")
    def pid_text(self, worker: Any) -> str:
        return str(worker.pid)

    @admin.display
    def state(self, worker: Any) -> str | None:
        return worker.live.state if worker.live else None

    @admin.display
    def queues(self, worker: Any) -> str | None:
        return ", ".join(worker.live.queues or []) if worker.live else None

    @admin.display(description="tasks held")
    def holds(self, worker: Any) -> str | None:
        return str(worker.live.holds) if worker.live else None

    @admin.display
    def lease(self, worker: Any) -> str | None:
        return f"{worker.live.lease:g} s" if worker.live else None

    @admin.display(description="lost")
    def lost_at(self, worker: Any) -> datetime | None:
        return worker.live.lost_at if worker.live else None


def _text(text: str) -> SafeString:
    """Return a text of several lines, escaped. Of a long one, the end is shown."""
    shown = escaped(text[-_SHOWN_TEXT:], keep="\n\t")
    before = f"… {len(text) - _SHOWN_TEXT} characters before\n" if len(text) > _SHOWN_TEXT else ""
    return format_html('<pre class="task-text">{}{}</pre>', before, shown)


def _json(read: Callable[[], object]) -> SafeString:
    """Return a stored JSON value as text, escaped."""
    try:
        text = json.dumps(read(), indent=2, ensure_ascii=False)
    except PayloadError as error:
        text = str(error)
    shown = text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}\n… {len(text) - _SHOWN_TEXT} more characters"
    return format_html('<pre class="task-text">{}</pre>', escaped(shown, keep="\n"))


def _row(attempt: Attempt) -> SafeString:
    """Return the rows of the table of attempts for one of them."""
    cells = attempt.number, _time(attempt.started_at), _time(attempt.finished_at), attempt.outcome or "running"
    row = format_html("<tr>{}</tr>", format_html_join("", "<td>{}</td>", ([c] for c in (*cells, attempt.worker or ""))))
    texts = [(name, text) for name, text in (("error", attempt.error), ("output", attempt.output)) if text]
    more = format_html_join("", '<tr><td>{}</td><td colspan="4">{}</td></tr>', ((n, _text(t)) for n, t in texts))
    return format_html("{}{}", row, more)


def _time(time: datetime | None) -> str:
    return "" if time is None else localtime(time).strftime("%Y-%m-%d %H:%M:%S")


if models.database() is not None:
    admin.site.register(models.Task, TaskAdmin)
    admin.site.register(models.Worker, WorkerAdmin)
