"""Tests under Django's test runner: the helpers for tests, and the pages of the admin."""

import json
import os
import re
from io import StringIO
from types import ModuleType, SimpleNamespace

import pymysql
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.db import connections, transaction
from django.tasks import default_task_backend
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from dbtaskqueue import RetryPolicy, TaskQueue
from dbtaskqueue.integrations.django import checks
from dbtaskqueue.integrations.django.testing import TaskTestMixin, captured_tasks
from shop.models import Order
from shop.tasks import (
    add_receipts,
    chain,
    describe,
    fail_until,
    refuse,
    wait_for_file,
    write_receipt,
    write_receipt_async,
)

SOON = RetryPolicy(delay=0)


class CapturedTest(TaskTestMixin, TestCase):
    def test_the_calls_of_a_block_are_captured_in_order(self):
        write_receipt.enqueue(1)
        with captured_tasks() as tasks:
            write_receipt.enqueue(2)
            refuse.enqueue(message="no")
        self.assertEqual([task.task.name for task in tasks], ["write_receipt", "refuse"])
        self.assertEqual(len(tasks), 2)
        self.assertEqual(tasks[0].args, [2])
        self.assertEqual(len(self.enqueued), 3)

    def test_they_run_on_the_connection_of_the_test(self):
        order = Order.objects.create(address="Ann")
        with captured_tasks() as tasks:
            write_receipt.enqueue(order.id)
        [result] = tasks.run()
        order.refresh_from_db()
        self.assertEqual(order.receipt, "Receipt for Ann")
        self.assertEqual((result.status, result.return_value["length"]), ("SUCCESSFUL", 15))
        self.assertEqual(tasks.run(), [])

    def test_async_functions_and_contexts(self):
        order = Order.objects.create(address="Ann")
        with captured_tasks() as tasks:
            describe.enqueue()
            write_receipt_async.enqueue(order.id)
        result, _ = tasks.run()
        self.assertEqual(result.return_value["attempt"], 1)
        order.refresh_from_db()
        self.assertEqual(order.receipt, "Receipt for Ann")

    def test_tasks_that_tasks_enqueue_run_too(self):
        with captured_tasks() as tasks:
            chain.enqueue(3)
        self.assertEqual([result.return_value for result in tasks.run()], [3, 2, 1, 0])

    def test_the_first_exception_is_raised(self):
        with captured_tasks() as tasks:
            refuse.enqueue("no")
        with self.assertRaisesMessage(ValueError, "no"):
            tasks.run()
        self.assertEqual(tasks[0].status, "FAILED")
        [error] = tasks[0].errors
        self.assertIs(error.exception_class, ValueError)
        self.assertIn("ValueError: no", error.traceback)

    def test_a_task_that_was_rolled_back_is_left_out(self):
        with captured_tasks() as tasks:
            try:
                with transaction.atomic():
                    write_receipt.enqueue(1)
                    raise ValueError
            except ValueError:
                pass
            self.assertEqual(len(tasks), 0)
            describe.enqueue()
        self.assertEqual([task.task.name for task in tasks], ["describe"])
        self.assertNotEnqueued(write_receipt)

    def test_tasks_report_progress(self):
        with captured_tasks() as tasks:
            add_receipts.enqueue([1, 2])
        self.assertEqual(tasks.run()[0].status, "SUCCESSFUL")

    def test_assertions(self):
        write_receipt.enqueue(1)
        self.assertEqual(self.assertEnqueued(write_receipt, 1).args, [1])
        self.assertEnqueued(write_receipt)
        self.assertNotEnqueued(write_receipt, 2)
        self.assertNotEnqueued(refuse)
        with self.assertRaisesRegex(
            AssertionError, r"write_receipt\(2\) was not enqueued; .*\n  shop.*write_receipt\(1\)"
        ):
            self.assertEnqueued(write_receipt, 2)
        with self.assertRaisesRegex(AssertionError, r"write_receipt\(…\) was enqueued"):
            self.assertNotEnqueued(write_receipt)

    async def test_an_async_test_reads_through_sync_to_async(self):
        """The thread of its event loop is not in the transaction of the test: nothing would be found there."""
        order = await Order.objects.acreate(address="Ann")
        with captured_tasks() as tasks:
            await write_receipt_async.aenqueue(order.id)
        await sync_to_async(self.assertEnqueued)(write_receipt_async, order.id)
        for read in (lambda: self.assertEnqueued(write_receipt_async), lambda: len(tasks), tasks.run):
            with self.assertRaisesMessage(SynchronousOnlyOperation, "await sync_to_async(self.assertEnqueued)"):
                read()
        await sync_to_async(tasks.run)()
        await order.arefresh_from_db()
        self.assertEqual(order.receipt, "Receipt for Ann")

    def test_messages_are_short(self):
        with self.assertRaisesRegex(AssertionError, "no task was"):
            self.assertEnqueued(refuse, "no")
        for number in range(25):
            write_receipt.enqueue(number)
        with self.assertRaisesRegex(AssertionError, "and 5 more"):
            self.assertEnqueued(refuse, "no")


class WorkerTest(TransactionTestCase):
    def work(self, executor="thread"):
        call_command("dbtaskqueue", "worker", "--burst", "--executor", executor)

    def test_a_worker_runs_what_the_test_enqueued(self):
        order = Order.objects.create(address="Ann")
        result = write_receipt.enqueue(order.id)
        also = write_receipt_async.enqueue(order.id)
        self.work()
        self.assertEqual(default_task_backend.get_result(result.id).return_value, {"order": order.id, "length": 15})
        self.assertEqual(default_task_backend.get_result(also.id).status, "SUCCESSFUL")

    def test_child_processes_use_the_databases_of_the_test(self):
        order = Order.objects.create(address="Ann")
        first, second = write_receipt.enqueue(order.id), fail_until.using(max_attempts=2, retry=SOON).enqueue(2)
        self.work("process")
        order.refresh_from_db()
        self.assertEqual(order.receipt, "Receipt for Ann")
        self.assertEqual(
            [default_task_backend.get_result(each.id).status for each in (first, second)], ["SUCCESSFUL"] * 2
        )

    def test_the_log_shows_where_a_task_failed_in_a_child_process(self):
        refuse.enqueue("no")
        with self.assertLogs("django.tasks", "ERROR") as logs:
            self.work("process")
        self.assertRegex(logs.output[0], r'tasks\.py", line \d+, in refuse\n    raise ValueError\(message\)')

    def test_a_worker_runs_command_lines(self):
        task = default_task_backend.queue.enqueue_command(["true"])
        with self.assertNoLogs("dbtaskqueue", "WARNING"):
            call_command("dbtaskqueue", "worker", "--burst", "--allow-commands")
        self.assertEqual(task.refresh().state, "done")

    def test_the_flush_between_tests_empties_the_queue(self):
        for _ in range(2):
            result = refuse.enqueue("left behind")
            ended = describe.enqueue()
            self.work()
            self._fixture_teardown()
            for id in (result.id, ended.id):
                with self.assertRaises(TaskResultDoesNotExist):
                    default_task_backend.get_result(id)


class DriverTest(SimpleTestCase):
    def test_other_drivers_are_errors(self):
        for check, module, name in [
            (checks._check_postgresql, "psycopg2", "psycopg"),
            (checks._check_mysql, "MySQLdb", "PyMySQL"),
        ]:
            [error] = check(SimpleNamespace(Database=ModuleType(module)), "DATABASES['default']")
            self.assertEqual((error.id, error.is_serious()), ("dbtaskqueue.E003", True))
            self.assertIn(name, error.msg)
        self.assertEqual(checks._check_postgresql(SimpleNamespace(Database=ModuleType("psycopg")), ""), [])
        self.assertEqual(checks._check_mysql(SimpleNamespace(Database=pymysql), ""), [])


class AdminTest(TransactionTestCase):
    """In real transactions, since the admin reads what the queue's own connections have stored."""

    def setUp(self):
        self.boss = User.objects.create_superuser("boss", password="x")
        self.client.force_login(self.boss)

    def work(self):
        call_command("dbtaskqueue", "worker", "--burst", "--executor", "thread", stdout=StringIO())

    def page(self, path, **data):
        response = self.client.get(f"/admin/dbtaskqueue/{path}", data)
        self.assertEqual(response.status_code, 200)
        return response.content.decode()

    def act(self, action, *ids, client=None):
        data = {"action": action, "_selected_action": list(ids), "index": 0}
        return (client or self.client).post("/admin/dbtaskqueue/task/", data, follow=True).content.decode()

    def status(self, id):
        return default_task_backend.get_result(id).status

    def test_the_list_shows_and_filters_tasks(self):
        write_receipt.enqueue(Order.objects.create(address="Ann").id)
        refuse.enqueue("<b>no</b>")
        add_receipts.enqueue([1, 2])
        self.work()
        waiting = describe.enqueue()
        page = self.page("task/")
        for text in ("shop.tasks.write_receipt", "ValueError: &lt;b&gt;no&lt;/b&gt;", "mail", "abandoned", "2/2"):
            self.assertIn(text, page)
        self.assertNotIn("<b>no</b>", page)
        self.assertIn("4 tasks", page)
        self.assertIn("1 task\n", self.page("task/", state="unfinished").replace("</", "\n</"))
        for filters, number in [
            ({"state": "abandoned"}, 1),
            ({"queue": "mail"}, 1),
            ({"function": "shop.tasks.write_receipt"}, 1),
            ({"q": waiting.id}, 1),
            ({"q": "receipt"}, 2),
        ]:
            with self.subTest(filters):
                page = self.page("task/", **filters)
                self.assertEqual(page.count('name="_selected_action"'), number)

    def test_a_page_of_tasks_takes_few_queries(self):
        for _ in range(30):
            describe.enqueue()
        with self.assertNumQueries(4):  # the session, the user, the count and the rows; ours are on other connections
            self.page("task/")

    def test_a_task_has_its_arguments_result_attempts_and_output(self):
        result = refuse.enqueue("<script>alert(1)</script>")
        done = add_receipts.enqueue([7, 8])
        self.work()
        page = self.page(f"task/{result.id}/change/")
        for text in ("Traceback (most recent call last)", "&lt;script&gt;alert(1)", "abandoned", "Retry"):
            self.assertIn(text, page)
        self.assertNotIn("<script>alert(1)", page)
        self.assertNotIn('name="_save"', page)
        self.assertNotIn("Cancel</button>", page)
        page = self.page(f"task/{done.id}/change/")
        self.assertIn("2/2 receipts", page)

    def test_attempts_and_what_ends_the_task(self):
        """The attempts that are stored include those for lost workers, which are not those of an exception."""
        once = refuse.enqueue("no")
        thrice = refuse.using(max_attempts=3).enqueue("no")
        often = refuse.using(max_attempts=20, meta={"tenant": 1}).enqueue("no")
        forever = refuse.using(retry=RetryPolicy(max_attempts=None)).enqueue("no")
        self.work()
        page = self.page("task/")
        cells = re.findall(r'<td class="field-attempt">(.*?)</td>', page)
        self.assertEqual(cells, ["1", "1/20", "1/3", "1/1"])
        for id, text in [
            (once.id, "an exception in attempt 1 or later, a lost worker in attempt 10"),
            (thrice.id, "an exception in attempt 3 or later, a lost worker in attempt 10"),
            (often.id, "an exception in attempt 20, a lost worker in attempt 20"),
        ]:
            page = self.page(f"task/{id}/change/")
            self.assertIn(text, page)
            self.assertNotIn("dbtaskqueue.django", page)
        self.assertIn("tenant", page)
        self.assertNotIn("an exception in", self.page(f"task/{forever.id}/change/"))
        self.client.post(f"/admin/dbtaskqueue/task/{once.id}/retry/")
        page = self.page(f"task/{once.id}/change/")
        self.assertIn("an exception in attempt 2 or later, a lost worker in attempt 11", page)

    def test_what_is_not_there_redirects(self):
        self.assertEqual(self.client.get("/admin/dbtaskqueue/task/12345/change/").status_code, 302)

    def test_retry_and_cancel(self):
        failed = refuse.enqueue("no")
        self.work()
        waiting = describe.enqueue()
        page = self.act("retry", failed.id, waiting.id)
        self.assertIn("1 task is due again", page)
        self.assertIn("1 task did not change", page)
        self.assertEqual(self.status(failed.id), "READY")
        self.assertIn("2 tasks are cancelled", self.act("cancel", failed.id, waiting.id))
        self.assertEqual(self.status(waiting.id), "FAILED")
        for id, verbs in ((failed.id, ["cancel", "retry"]), (waiting.id, ["cancel", "retry"])):
            rows = default_task_backend.queue.audit(task=int(id), limit=2)
            self.assertEqual(
                [(row.who, row.via, row.verb) for row in rows], [("boss", "admin", verb) for verb in verbs]
            )

    def test_buttons_of_a_task(self):
        waiting = describe.enqueue()
        address = f"/admin/dbtaskqueue/task/{waiting.id}"
        self.assertIn(f"{address}/cancel/", self.page(f"task/{waiting.id}/change/"))
        self.assertEqual(self.client.get(f"{address}/cancel/").status_code, 405)
        self.assertEqual(self.status(waiting.id), "READY")
        response = self.client.post(f"{address}/cancel/", follow=True)
        self.assertIn("1 task is cancelled", response.content.decode())
        self.assertEqual(self.status(waiting.id), "FAILED")
        self.client.post(f"{address}/retry/")
        self.assertEqual(self.status(waiting.id), "READY")
        self.assertEqual(self.client.post("/admin/dbtaskqueue/task/12345/retry/").status_code, 404)

    def test_actions_and_buttons_with_atomic_requests(self):
        """On SQLite, a transaction of the request would block the queue's own connection."""
        settings = connections["default"].settings_dict
        self.addCleanup(settings.update, ATOMIC_REQUESTS=settings["ATOMIC_REQUESTS"])
        settings["ATOMIC_REQUESTS"] = True
        waiting = describe.enqueue()
        self.assertIn("1 task is cancelled", self.act("cancel", waiting.id))
        self.client.post(f"/admin/dbtaskqueue/task/{waiting.id}/retry/")
        self.assertEqual(self.status(waiting.id), "READY")

    def test_each_action_needs_its_permission(self):
        user = User.objects.create_user("clerk", password="x", is_staff=True)
        waiting = describe.enqueue()
        self.client.force_login(user)
        self.assertEqual(self.client.get("/admin/dbtaskqueue/task/").status_code, 403)
        self.assertEqual(self.client.post(f"/admin/dbtaskqueue/task/{waiting.id}/cancel/").status_code, 403)
        user.user_permissions.add(Permission.objects.get(codename="view_task"))
        self.assertNotIn("Cancel selected", self.page("task/"))
        self.assertNotIn("/cancel/", self.page(f"task/{waiting.id}/change/"))
        self.act("cancel", waiting.id)
        self.assertEqual(self.client.post(f"/admin/dbtaskqueue/task/{waiting.id}/cancel/").status_code, 403)
        self.assertEqual(self.status(waiting.id), "READY")
        user.user_permissions.add(Permission.objects.get(codename="cancel_task"))
        self.assertIn("Cancel selected", self.page("task/"))
        self.assertNotIn("Retry selected", self.page("task/"))
        self.act("cancel", waiting.id)
        self.assertEqual(self.status(waiting.id), "FAILED")

    def test_nobody_adds_changes_or_deletes_rows(self):
        waiting = describe.enqueue()
        self.assertEqual(self.client.get("/admin/dbtaskqueue/task/add/").status_code, 403)
        self.assertEqual(self.client.get(f"/admin/dbtaskqueue/task/{waiting.id}/delete/").status_code, 403)
        self.assertEqual(
            self.client.post(f"/admin/dbtaskqueue/task/{waiting.id}/change/", {"state": "done"}).status_code, 403
        )
        self.assertNotIn("delete_selected", self.page("task/"))

    def test_workers_are_listed(self):
        self.assertIn("0 workers", self.page("worker/"))
        wait_for_file.enqueue("x")
        with TaskQueue(default_task_backend.url, create=False) as queue:  # closed afterwards: it has a connection
            [held] = queue.fetch()
            page = self.page("worker/")
            for text in ("alive", "1 worker", str(os.getpid())):
                self.assertIn(text, page)
            self.assertIn(f"/admin/dbtaskqueue/worker/{held.worker}/change/", page)
            self.assertIn("30 s", self.page(f"worker/{held.worker}/change/"))

    def test_arguments_are_shown_as_json(self):
        waiting = describe.enqueue("ü", {"deep": [1, None]})
        page = self.page(f"task/{waiting.id}/change/")
        self.assertIn("ü", page)
        self.assertIn("&quot;deep&quot;", page)
        self.assertEqual(json.loads(json.dumps(waiting.args)), ["ü", {"deep": [1, None]}])
