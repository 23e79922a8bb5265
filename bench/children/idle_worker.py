"""A worker as small as it gets: what the seed program is, with nothing else imported. Argument: URL."""

import sys

from dbtaskqueue import Worker

Worker(sys.argv[1]).run(lambda payload: {"status": "OK", "number": payload["number"]})
