-- The facet Schedules.

-- name: export_schedule
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule ORDER BY queue, name

-- name: export_tick
SELECT {{stored_tick_columns}} FROM {{schema}}dbtaskqueue_tick ORDER BY queue, schedule, at

-- name: load_schedule
INSERT INTO {{schema}}dbtaskqueue_schedule ({{stored_schedule_columns}}) VALUES ({{stored_schedule_values}})

-- name: load_tick
INSERT INTO {{schema}}dbtaskqueue_tick ({{stored_tick_columns}}) VALUES ({{stored_tick_values}})
