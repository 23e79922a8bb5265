-- The facet Dependencies: parents, children, and what the end of a parent decides.
--
-- The rule for reviewers: on PostgreSQL, what a lock protects is read in a later statement than the one that took the
-- lock. A statement sees the database as it was when the statement started. If it had to wait for a lock after that, it
-- would miss what the holder of the lock has just committed, such as the edge of a new child.
--
-- Locks are taken in this order: the tasks that end, by id; then gates, by task; then children, by id. A deadlock is
-- still possible if a child ends by itself. The database stops one of the transactions, and it is run again.

-- name: lock_parents
-- The locks keep the parents from ending and from being pruned until their new children are stored.
SELECT id, state FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id {{for_update}}

-- name: mark_parents
UPDATE {{schema}}dbtaskqueue_task SET flow = flow | 1 WHERE id {{in_ids}} AND (flow & 1) = 0

-- name: lock_gates
SELECT task, wants, total, open, delay FROM {{schema}}dbtaskqueue_gate WHERE task {{in_ids}} ORDER BY task {{for_update}}

-- name: widen_gate
UPDATE {{schema}}dbtaskqueue_gate SET open = open + :number, total = total + :number WHERE task = :task

-- name: next_place
SELECT max(place) + 1 FROM {{schema}}dbtaskqueue_edge WHERE child = :task

-- name: insert_edge
INSERT INTO {{schema}}dbtaskqueue_edge ({{stored_edge_columns}}) VALUES ({{stored_edge_values}})

-- name: insert_gate
INSERT INTO {{schema}}dbtaskqueue_gate ({{stored_gate_columns}}) VALUES ({{stored_gate_values}})

-- name: open_edges
-- Edges of tasks that have just ended. The locks on these tasks protect them.
SELECT parent, child, wants FROM {{schema}}dbtaskqueue_edge {{by_open_edge}}
 WHERE {{is_open_edge}} ORDER BY {{open_parent}}, child LIMIT :limit

-- name: open_parent
parent

-- name: is_open_edge
parent {{in_ids}} AND met IS NULL

-- name: meet_edges
-- All edges of these parents. If there is only one parent, perhaps only its edges up to a child.
UPDATE {{schema}}dbtaskqueue_edge {{by_open_edge}}
   SET met = CASE wants WHEN 2 THEN 1 WHEN 1 THEN :is_done ELSE 1 - :is_done END
 WHERE {{is_open_edge}} AND child <= :last

-- name: close_gates
UPDATE {{schema}}dbtaskqueue_gate SET open = open - :number WHERE task {{in_ids}}

-- name: with_met_edge
SELECT DISTINCT child FROM {{schema}}dbtaskqueue_edge WHERE child {{in_ids}} AND met = 1

-- name: lock_blocked
SELECT id, queue, flow FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND (blocked & 1) = 1 AND finished_at IS NULL ORDER BY id {{for_update}}

-- name: release_children
UPDATE {{schema}}dbtaskqueue_task SET blocked = blocked - 1, due = coalesce(:due, due), due_set_at = :now
 WHERE id {{in_ids}} AND (blocked & 1) = 1 AND finished_at IS NULL

-- name: end_children
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, finished_at = :now, worker = NULL, reason = :reason, state = :state
 WHERE id {{in_ids}} AND (blocked & 1) = 1 AND finished_at IS NULL

-- name: insert_undecided
INSERT INTO {{schema}}dbtaskqueue_undecided (parent) VALUES (:parent) ON CONFLICT (parent) DO NOTHING

-- name: undecided
SELECT parent FROM {{schema}}dbtaskqueue_undecided ORDER BY parent LIMIT :limit

-- name: delete_undecided
DELETE FROM {{schema}}dbtaskqueue_undecided WHERE parent {{in_ids}}

-- name: overlooked
-- Final tasks with an open edge: a worker of an earlier version has ended them. Reads each open edge. The inner query
-- keeps every engine from reading all tasks instead, also in needed_parents and expirable.
SELECT DISTINCT parent FROM {{schema}}dbtaskqueue_edge {{by_open_edge}}
 WHERE met IS NULL
   AND (SELECT CASE WHEN finished_at IS NULL THEN 0 ELSE 1 END FROM {{schema}}dbtaskqueue_task WHERE id = parent) = 1
   AND NOT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_undecided AS known WHERE known.parent = dbtaskqueue_edge.parent)
 LIMIT :limit

-- name: lock_task
SELECT state, flow FROM {{schema}}dbtaskqueue_task WHERE id = :id {{for_update}}

-- name: forbidding_parents
-- Parents because of which these children cannot start.
SELECT edge.child, edge.parent, parent.state FROM {{schema}}dbtaskqueue_edge AS edge
  JOIN {{schema}}dbtaskqueue_task AS parent ON parent.id = edge.parent
 WHERE edge.child {{in_ids}} AND edge.met = 0 AND edge.wants = 1 ORDER BY edge.child, edge.place

-- name: settled_children
SELECT child FROM {{schema}}dbtaskqueue_edge WHERE parent = :id AND met IS NOT NULL ORDER BY child

-- name: lock_children
-- ``started``: an attempt has started since an operator's retry, or perhaps has: its batch stores starts with ends.
SELECT id, state, CASE WHEN state IN ('running', 'failed') OR attempt > retry_base OR batched = 1 THEN 1 ELSE 0 END,
       CASE WHEN reason IS NULL THEN 0 ELSE 1 END, flow, "key"
  FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id {{for_update}}

-- name: reopen_edges
UPDATE {{schema}}dbtaskqueue_edge SET met = NULL WHERE parent = :parent AND child {{in_ids}}

-- name: reopen_gates
UPDATE {{schema}}dbtaskqueue_gate SET open = open + 1 WHERE task {{in_ids}}

-- name: block_children
UPDATE {{schema}}dbtaskqueue_task
   SET blocked = blocked | 1, token = CASE WHEN state = 'reserved' THEN token + 1 ELSE token END,
       worker = CASE WHEN state = 'reserved' THEN NULL ELSE worker END, state = 'pending'
 WHERE id {{in_ids}} AND state IN ('pending', 'reserved')

-- name: revive_children
UPDATE {{schema}}dbtaskqueue_task
   SET blocked = blocked | 1, retry_token = token, token = token + 1, retry_base = attempt, finished_at = NULL,
       reason = NULL, worker = NULL, cancel_requested = 0, expires = NULL, state = 'pending'
 WHERE id {{in_ids}} AND state = 'cancelled' AND reason IS NOT NULL

-- name: block
UPDATE {{schema}}dbtaskqueue_task SET blocked = CASE WHEN :blocked = 1 THEN blocked | 1 ELSE blocked & 254 END WHERE id = :id

-- name: needed_parents
-- Tasks that an unfinished child waits for, or whose results it may read, and those with a child that is not decided.
SELECT DISTINCT parent FROM {{schema}}dbtaskqueue_edge
 WHERE parent {{in_ids}}
   AND (met IS NULL
        OR (SELECT CASE WHEN finished_at IS NULL THEN 1 ELSE 0 END FROM {{schema}}dbtaskqueue_task WHERE id = child) = 1)

-- name: parents
SELECT {{stored_edge_columns}} FROM {{schema}}dbtaskqueue_edge WHERE child = :id ORDER BY place LIMIT :limit

-- name: children
SELECT {{stored_edge_columns}} FROM {{schema}}dbtaskqueue_edge
 WHERE parent = :id AND child > :after ORDER BY child LIMIT :limit

-- name: gate
SELECT {{stored_gate_columns}} FROM {{schema}}dbtaskqueue_gate WHERE task = :id

-- name: gates
SELECT {{stored_gate_columns}} FROM {{schema}}dbtaskqueue_gate WHERE task {{in_ids}} AND open > 0

-- name: open_parents
-- Reads at most the edges of one child, which are 10,000. The condition is written so that PostgreSQL does not read the
-- index of all open edges.
SELECT {{stored_edge_columns}} FROM {{schema}}dbtaskqueue_edge
 WHERE child = :id AND CASE WHEN met IS NULL THEN 1 ELSE 0 END = 1 ORDER BY place LIMIT :limit

-- name: parent_states
-- What a child knows about its parents, without their results.
SELECT edge.parent, edge.arguments, parent.state, parent.function FROM {{schema}}dbtaskqueue_edge AS edge
  LEFT JOIN {{schema}}dbtaskqueue_task AS parent ON parent.id = edge.parent
 WHERE edge.child = :id ORDER BY edge.place

-- name: delete_edges_of_children
-- Edges of pruned parents stay as long as the child: a retry of the child must know that a result is missing.
DELETE FROM {{schema}}dbtaskqueue_edge WHERE child {{in_ids}}

-- name: delete_gates
DELETE FROM {{schema}}dbtaskqueue_gate WHERE task {{in_ids}}

-- name: export_edge
SELECT {{stored_edge_columns}} FROM {{schema}}dbtaskqueue_edge WHERE child > :after AND child <= :last

-- name: export_gate
SELECT {{stored_gate_columns}} FROM {{schema}}dbtaskqueue_gate WHERE task > :after AND task <= :last

-- name: export_undecided
SELECT parent FROM {{schema}}dbtaskqueue_undecided WHERE parent > :after AND parent <= :last

-- name: load_undecided
INSERT INTO {{schema}}dbtaskqueue_undecided (parent) VALUES (:parent)
