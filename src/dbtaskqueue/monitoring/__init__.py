"""What happens in a database, for people to read: descriptions of tasks, snapshots, health.

Functions that read a store and return plain records, which the command line formats and prints.
"""
