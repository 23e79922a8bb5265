"""What happens in a database, for people: tasks in words, snapshots, health.

Functions over a store and plain records, which the command line formats and prints. They only read.
"""
