"""The same promises on PostgreSQL and MariaDB, on servers that are started for this run and end with it."""
