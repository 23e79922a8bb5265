"""The engine for a PostgreSQL server, 13 or later, through psycopg 3."""
