-- The facet Copying: rows as they are stored.

-- name: set_oldest
UPDATE {{schema}}dbtaskqueue_schema SET oldest = :oldest

-- name: export_queue
SELECT {{stored_queue_columns}} FROM {{schema}}dbtaskqueue_queue ORDER BY name

-- name: export_task
SELECT {{stored_task_columns}} FROM {{schema}}dbtaskqueue_task WHERE id > :after ORDER BY id LIMIT :limit

-- name: export_large
SELECT {{stored_large_columns}} FROM {{schema}}dbtaskqueue_large WHERE task > :after AND task <= :last

-- name: export_note
SELECT {{stored_note_columns}} FROM {{schema}}dbtaskqueue_note WHERE task > :after AND task <= :last

-- name: export_attempt
SELECT {{stored_attempt_columns}} FROM {{schema}}dbtaskqueue_attempt WHERE task > :after AND task <= :last

-- name: load_queue
INSERT INTO {{schema}}dbtaskqueue_queue ({{stored_queue_columns}}) VALUES ({{stored_queue_values}})

-- name: load_worker
INSERT INTO {{schema}}dbtaskqueue_worker ({{stored_worker_columns}}) VALUES ({{stored_worker_values}})

-- name: load_task
INSERT INTO {{schema}}dbtaskqueue_task ({{stored_task_columns}}) VALUES ({{stored_task_values}})

-- name: load_large
INSERT INTO {{schema}}dbtaskqueue_large ({{stored_large_columns}}) VALUES ({{stored_large_values}})

-- name: load_note
INSERT INTO {{schema}}dbtaskqueue_note ({{stored_note_columns}}) VALUES ({{stored_note_values}})

-- name: load_action
INSERT INTO {{schema}}dbtaskqueue_action ({{stored_action_columns}}) VALUES ({{stored_action_values}})
    ON CONFLICT (id) DO NOTHING

-- name: load_operation
INSERT INTO {{schema}}dbtaskqueue_operation ({{stored_operation_columns}}) VALUES ({{stored_operation_values}})
    ON CONFLICT (id) DO NOTHING
