-- The facet Database: the schema. Each engine has its own catalogue and health checks.

-- name: schema_version
SELECT version, oldest FROM {{schema}}dbtaskqueue_schema
