"""The lists of the admin: where their rows come from, and their filters."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.views import main
from django.db.models import QuerySet
from django.http import HttpRequest
from django.tasks import task_backends

from dbtaskqueue import TaskQueue, TaskState

from . import models


def shown_queue() -> TaskQueue:
    """Return the queue of the backend that the admin shows."""
    found = models.shown_backend()
    assert found is not None
    queue: TaskQueue = task_backends[found[0]].queue
    return queue


class ChangeList(main.ChangeList):
    """A page of a list, whose objects are completed by the queue."""

    def get_results(self, request: HttpRequest) -> None:
        """See Django."""
        super().get_results(request)
        rows: Any = self.result_list
        self.result_list: Any = list(rows)
        self.model_admin.complete(self.result_list)


class StateFilter(admin.SimpleListFilter):
    """The state of a task, or all unfinished ones."""

    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """See Django."""
        return [("unfinished", "unfinished"), *((str(state), str(state)) for state in TaskState)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """See Django."""
        if self.value() == "unfinished":
            return queryset.filter(finished_at=None)
        return queryset.filter(state=self.value()) if self.value() else queryset


class QueueFilter(admin.SimpleListFilter):
    """The queues of all backends. To read them from the table would read all of it."""

    title = parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """See Django."""
        names = {name for backend in task_backends.all() for name in backend.queues}
        return [(name, name) for name in sorted({*names, *filter(None, [self.value()])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """See Django."""
        return queryset.filter(queue=self.value()) if self.value() else queryset


class FunctionFilter(admin.SimpleListFilter):
    """The task functions of this project."""

    title = parameter_name = "function"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """See Django."""
        return [(name, name) for name in sorted({*shown_queue().functions.names(), *filter(None, [self.value()])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """See Django."""
        return queryset.filter(function=self.value()) if self.value() else queryset
