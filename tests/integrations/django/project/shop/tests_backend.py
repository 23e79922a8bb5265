"""Tests of the backend under Django's test runner: transactions, results, retries, signals, migrations."""

import sys
from datetime import timedelta
from io import StringIO
from threading import Event

from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.db.migrations.loader import MigrationLoader
from django.db.transaction import TransactionManagementError
from django.db.utils import IntegrityError
from django.tasks import default_task_backend
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test import TestCase, TransactionTestCase
from django.utils import timezone

from dbtaskqueue import RetryPolicy
from dbtaskqueue.integrations.django import DatabaseBackend
from shop.models import Order
from shop.tasks import (
    count_later,
    describe,
    fail_until,
    meeting,
    patient,
    read_quickly,
    read_slowly,
    refuse,
    write_receipt,
    write_receipt_async,
)

SOON = RetryPolicy(delay=0)


def work(*words):
    call_command("dbtaskqueue", "worker", "--burst", "--executor", "thread", *words, stdout=StringIO())


def status(result):
    try:
        return str(default_task_backend.get_result(result.id).status)
    except TaskResultDoesNotExist:
        return None


class TransactionsTest(TransactionTestCase):
    def test_a_task_exists_if_and_only_if_its_transaction_commits(self):
        with transaction.atomic():
            kept = describe.enqueue()
            self.assertEqual(status(kept), "READY")
            self.assertEqual(default_task_backend.queue.find(all_queues=True).tasks, [])  # not seen from outside
        self.assertEqual(status(kept), "READY")
        with self.assertRaises(ValueError), transaction.atomic():
            gone = describe.enqueue()
            raise ValueError
        self.assertIsNone(status(gone))

    def test_savepoints(self):
        with transaction.atomic():
            kept = describe.enqueue()
            with self.assertRaises(ValueError), transaction.atomic():
                gone = describe.enqueue("gone")
                raise ValueError
            after = describe.enqueue("after")
        self.assertEqual((status(kept), status(after)), ("READY", "READY"))
        if gone.id != after.id:
            self.assertIsNone(status(gone))
        self.assertEqual(default_task_backend.get_result(after.id).args, ["after"])

    def test_in_a_broken_transaction_django_s_error_is_raised(self):
        order = Order.objects.create(address="Ann")
        with transaction.atomic():
            with self.assertRaises(IntegrityError):
                Order.objects.create(id=order.id)
            with self.assertRaises(TransactionManagementError):
                describe.enqueue()
            transaction.set_rollback(True)

    def test_a_transaction_without_atomic(self):
        transaction.set_autocommit(False)
        try:
            Order.objects.create(address="Ann")
            gone = describe.enqueue()
            self.assertEqual(status(gone), "READY")
            transaction.rollback()
            self.assertIsNone(status(gone))
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_the_setting_autocommit(self):
        """A transaction starts with the first statement, which may be that of enqueue."""
        settings = connection.settings_dict
        self.addCleanup(settings.update, AUTOCOMMIT=settings["AUTOCOMMIT"])
        self.addCleanup(connection.close)
        settings["AUTOCOMMIT"] = False
        connection.close()
        gone = describe.enqueue()
        transaction.rollback()
        self.assertIsNone(status(gone))


class RolledBackTest(TestCase):
    """A TestCase rolls back, and the tasks with it."""

    def test_one(self):
        self.assertEqual(status(describe.enqueue()), "READY")
        self.assertEqual(default_task_backend.queue.find(all_queues=True).tasks, [])

    test_two = test_one


class ResultsTest(TransactionTestCase):
    def test_an_exception_is_final_and_its_text_may_have_several_lines(self):
        result = refuse.enqueue("no\nmore")
        work()
        result.refresh()
        self.assertEqual((result.status, result.attempts, len(result.errors)), ("FAILED", 1, 1))
        self.assertIs(result.errors[0].exception_class, ValueError)
        self.assertTrue(result.errors[0].traceback.endswith("ValueError: no\nmore\n"))
        self.assertIsNotNone(result.finished_at)

    def test_attempts_have_errors_and_workers(self):
        result = fail_until.using(max_attempts=3, retry=SOON).enqueue(3)
        work()
        result.refresh()
        self.assertEqual((result.status, result.return_value), ("SUCCESSFUL", 3))
        self.assertEqual([error.exception_class for error in result.errors], [KeyError, KeyError])
        self.assertIn("KeyError: 1", result.errors[0].traceback)
        self.assertEqual((len(result.worker_ids), len(set(result.worker_ids))), (3, 1))
        self.assertLess(result.started_at, result.last_attempted_at)

    def test_max_attempts_counts_exceptions(self):
        result = fail_until.using(max_attempts=2, retry=SOON).enqueue(9)
        work()
        self.assertEqual((status(result), len(default_task_backend.get_result(result.id).errors)), ("FAILED", 2))
        default_task_backend.queue.retry(int(result.id))  # begins to count again
        work()
        result.refresh()
        self.assertEqual((result.status, len(result.errors)), ("FAILED", 4))

    def test_the_backoff_of_a_task(self):
        result = patient.enqueue()
        work()
        result.refresh()
        self.assertEqual((result.status, len(result.errors)), ("FAILED", 3))
        with self.assertRaisesMessage(InvalidTask, "where it is defined"):
            fail_until.using(backoff=lambda error, attempt: 1).enqueue(1)

    def test_context(self):
        result = describe.enqueue()
        work()
        self.assertEqual(default_task_backend.get_result(result.id).return_value["attempt"], 1)

    def test_a_function_that_does_not_exist_fails_by_name_and_imports_nothing(self):
        [task] = default_task_backend.queue.submit(
            [{"args": [], "kwargs": {}}], {"retry": SOON, "max_attempts": 2}, "antigravity.fly"
        )
        work()
        result = default_task_backend.get_result(str(task.id))
        self.assertEqual((result.status, result.task.module_path), ("FAILED", "antigravity.fly"))
        self.assertIn("there is no task 'antigravity.fly'", result.errors[0].traceback)
        self.assertNotIn("antigravity", sys.modules)

    def test_ids_that_are_none(self):
        queue = default_task_backend.queue
        for id in ("", "x", "0", "-1", "1.0", "٣", "9" * 30, 5, None, str(queue.enqueue("no call").id)):
            with self.subTest(id), self.assertRaises(TaskResultDoesNotExist):
                default_task_backend.get_result(id)

    def test_what_an_operator_changes_can_still_be_read(self):
        result = describe.enqueue()
        default_task_backend.queue.reschedule(int(result.id), priority=500, queue="elsewhere")
        found = default_task_backend.get_result(result.id)
        self.assertEqual((found.task.priority, found.task.queue_name), (100, "elsewhere"))

    def test_options_come_back_with_the_result(self):
        task = describe.using(
            priority=7, queue_name="mail", run_after=timezone.now() + timedelta(hours=1), key="k", meta={"a": 1}
        ).using(max_attempts=4, time_limit=5.0)
        result = task.enqueue("x")
        self.assertEqual(default_task_backend.get_result(result.id), result)
        self.assertEqual(result.task, task)
        again = task.enqueue("y")
        self.assertEqual((again.id, again.args), (result.id, ["x"]))

    def test_options_are_checked(self):
        for options in ({"max_attempts": 0}, {"key": ""}, {"time_limit": -1}, {"meta": [1]}, {"backoff": 3}):
            with self.subTest(options), self.assertRaises(InvalidTask):
                describe.using(**options)
        with self.assertRaises(TypeError):
            describe.using(unknown=1)

    def test_parents_are_results(self):
        parent = describe.enqueue()
        child = describe.using(after=parent).enqueue()
        self.assertEqual(default_task_backend.queue.get(int(child.id)).parents(), [int(parent.id)])


class SignalsTest(TransactionTestCase):
    def test_signals(self):
        seen = []

        def note(sender, task_result, signal, **kwargs):
            stored = default_task_backend.get_result(task_result.id).status
            seen.append((sender, signal, str(task_result.status), str(stored)))

        for signal in (task_enqueued, task_started, task_finished):
            signal.connect(note)
            self.addCleanup(signal.disconnect, note)
        fail_until.using(max_attempts=2, retry=SOON, key="once").enqueue(2)
        fail_until.using(key="once").enqueue(2)  # exists already
        work("--queue", "default")
        names = [(signal, status) for _, signal, status, _ in seen]
        running = (task_started, "RUNNING")
        self.assertEqual(names, [(task_enqueued, "READY"), running, running, (task_finished, "SUCCESSFUL")])
        self.assertEqual({sender for sender, *_ in seen}, {DatabaseBackend})
        self.assertEqual(seen[-1][3], "SUCCESSFUL")

    def test_a_lost_attempt_that_is_the_last_one_finishes_its_task(self):
        seen = []

        def note(sender, task_result, **kwargs):
            seen.append((task_result.id, str(task_result.status)))

        task_finished.connect(note)
        self.addCleanup(task_finished.disconnect, note)
        result = describe.enqueue()
        queue = default_task_backend.queue
        [task] = queue.fetch()
        task.start()
        [extension] = queue.extensions
        extension.ended(queue.get(task.id), "lost", None)  # it runs again
        self.assertEqual(seen, [])
        task.fail("the worker was lost", retry=False)
        extension.ended(queue.get(task.id), "lost", None)
        self.assertEqual(seen, [(result.id, "FAILED")])


class ConnectionsTest(TransactionTestCase):
    def connections_after(self, *words):
        """Run tasks, and return the connections that they have made, and whether each is closed."""
        made = []

        def note(connection, **kwargs):
            made.append(connection)

        connection_created.connect(note)
        order = Order.objects.create(address="Ann")
        for task in (write_receipt, write_receipt_async):
            task.enqueue(order.id)
        work(*words)
        connection_created.disconnect(note)
        return {id(each): each.connection is None for each in made if each is not connections["default"]}

    def test_connections_are_closed_after_a_task(self):
        self.assertEqual([*self.connections_after().values()], [True, True])

    def test_connections_that_are_kept_open_are_closed_with_the_worker(self):
        settings = connection.settings_dict
        self.addCleanup(settings.update, CONN_MAX_AGE=settings["CONN_MAX_AGE"])
        settings["CONN_MAX_AGE"] = None
        for executor in ("thread", "asyncio"):
            with self.subTest(executor):
                self.assertEqual([*self.connections_after("--executor", executor).values()], [True, True])

    def meet(self, executor, first, second):
        """Run two coroutines at the same time: the second ends while the first one waits."""
        meeting.update(reading=Event(), done=Event())

        def note(task_result, **kwargs):
            if task_result.id == second.id:
                meeting["done"].set()

        task_finished.connect(note)
        self.addCleanup(task_finished.disconnect, note)
        work("--executor", executor, "--concurrency", "2")
        return [default_task_backend.get_result(each.id) for each in (first, second)]

    def test_the_end_of_a_coroutine_leaves_the_connections_of_others_open(self):
        """They share those of one thread, also if each has a thread for its event loop."""
        ids = [Order.objects.create(address=name).id for name in "abc"]
        for executor in ("asyncio", "thread"):
            with self.subTest(executor):
                first, second = self.meet(executor, read_slowly.enqueue(), read_quickly.enqueue())
                self.assertEqual((first.return_value, second.return_value), (ids, 3))

    def test_a_broken_connection_of_coroutines_is_replaced(self):
        if connection.vendor == "sqlite":
            self.skipTest("it has no server that could close a connection")
        Order.objects.create(address="Ann")
        first, second = self.meet("asyncio", count_later.enqueue(), read_quickly.enqueue(breaks=True))
        self.assertEqual((first.status, second.status), ("SUCCESSFUL", "FAILED"))


class SchemaTest(TransactionTestCase):
    def test_the_newest_migration_is_the_schema(self):
        newest = max(name for app, name in MigrationLoader(connection).disk_migrations if app == "dbtaskqueue")
        self.assertEqual(int(newest.partition("_")[0]), default_task_backend.queue.store.schema_version)

    def test_no_migration_is_missing(self):
        call_command("makemigrations", "--check", "--dry-run", stdout=StringIO())

    def test_the_statements_can_be_shown(self):
        out = StringIO()
        call_command("sqlmigrate", "dbtaskqueue", "0005", stdout=out)
        self.assertIn("dbtaskqueue_task", out.getvalue())


class CommandTest(TransactionTestCase):
    def call(self, *words):
        out = StringIO()
        call_command("dbtaskqueue", *words, stdout=out, stderr=out)
        return out.getvalue()

    def test_commands_use_the_backend(self):
        result = describe.enqueue()
        self.assertIn("shop.tasks.describe", self.call("list"))
        self.assertIn("shop.tasks.describe", self.call("show", result.id))
        self.assertIn("worker", self.call())
        self.call("cancel", result.id)
        self.assertEqual(status(result), "FAILED")

    def test_failures_are_command_errors(self):
        for words in (
            ["show", "12345"],
            ["unknown"],
            ["--backend", "nowhere", "list"],
            ["list", "--url", "sqlite:///x"],
        ):
            with self.subTest(words), self.assertRaises(Exception) as raised:
                self.call(*words)
            self.assertNotIsInstance(raised.exception, SystemExit)
        with self.assertRaises(CommandError) as raised:
            self.call("show", "12345")
        self.assertEqual(raised.exception.returncode, 1)
