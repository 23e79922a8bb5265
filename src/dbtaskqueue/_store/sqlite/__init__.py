"""The engine for one file: SQLite in WAL mode."""
