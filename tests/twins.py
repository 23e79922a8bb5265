"""Failing twins: tempting designs of dependencies that lose a child. Tests show that they do, and that ours does not.

``installed`` replaces a part of the store of this process. It works on PostgreSQL, where the mistakes show: there, a
statement sees the database as it was when it started.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dbtaskqueue._store.contract import End, Verdict
from dbtaskqueue._store.verbs import claims, dependencies
from dbtaskqueue.states import DONE, TaskState

_RELEASE = """
UPDATE {schema}dbtaskqueue_task AS child SET blocked = 0, due_set_at = %(now)s
 WHERE blocked = 1 AND id IN (SELECT child FROM {schema}dbtaskqueue_edge WHERE parent = ANY(%(ids)s))
   AND NOT EXISTS (SELECT 1 FROM {schema}dbtaskqueue_edge AS edge
                     JOIN {schema}dbtaskqueue_task AS parent ON parent.id = edge.parent
                    WHERE edge.child = child.id AND parent.finished_at IS NULL)
RETURNING id
"""

_END = """
WITH ended AS (UPDATE {schema}dbtaskqueue_task SET state = 'done', finished_at = %(at)s, result = %(result)s
                WHERE id = %(id)s AND token = %(token)s AND state = 'running' RETURNING id),
     met AS (UPDATE {schema}dbtaskqueue_edge AS edge SET met = 1 FROM ended
              WHERE edge.parent = ended.id AND edge.met IS NULL RETURNING edge.child),
     counted AS (UPDATE {schema}dbtaskqueue_gate AS gate SET open = open - 1 FROM met
                  WHERE gate.task = met.child RETURNING gate.task, gate.open),
     released AS (UPDATE {schema}dbtaskqueue_task SET blocked = 0
                   WHERE id IN (SELECT task FROM counted WHERE open = 0) RETURNING id)
SELECT (SELECT count(*) FROM ended)
"""


def _schema(tx: Any) -> str:
    text: bytes = tx._queries["lock_parents"]
    return text.decode().partition("FROM ")[2].partition("dbtaskqueue_task")[0]


def _decide_by_states(tx: Any, ended: Mapping[int, TaskState], now: int, purge: object = None) -> dependencies.Decided:
    """Release the children of which no parent is unfinished, instead of counting."""
    query = _RELEASE.format(schema=_schema(tx))
    rows = tx.connection.execute(query, {"ids": sorted(ended), "now": now}).fetchall()
    return dependencies.Decided([row[0] for row in rows])


def _finish_in_one_statement(self: object, tx: Any, end: End, values: object, parents: dict[int, TaskState]) -> Verdict:
    """Read the edges in the statement that ends the parent, instead of a later one."""
    count = tx.connection.execute(_END.format(schema=_schema(tx)), end._asdict()).fetchone()[0]
    assert count == 1
    return Verdict(True, DONE, end.token)


TWINS = {
    "NOT EXISTS instead of a counter": (dependencies, "_decide", _decide_by_states),
    "edges read in the ending statement": (claims.SqlClaims, "_finish", _finish_in_one_statement),
}


@contextlib.contextmanager
def installed(name: str | None) -> Iterator[None]:
    """Use this twin during the block; None: our own design."""
    if name is None:
        yield
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*TWINS[name])
            yield
