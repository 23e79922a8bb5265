"""Each task in a process of its own: a worker, its fork server, and the children."""
