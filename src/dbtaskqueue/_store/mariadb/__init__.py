"""The engine for a MariaDB server, 10.6 or later, through PyMySQL."""
