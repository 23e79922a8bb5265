"""The queue, without an application: modules with tasks import it."""

from dbtaskqueue.integrations.flask import FlaskTaskQueue

tasks = FlaskTaskQueue()
mails = tasks.lane("mails")
