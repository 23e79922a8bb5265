"""The same measurements on PostgreSQL and MariaDB servers that are started for this run and end with it."""
