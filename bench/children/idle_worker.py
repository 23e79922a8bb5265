"""The smallest possible worker, like the seed program, without further imports. Argument: URL."""

import sys

from dbtaskqueue import Worker

Worker(sys.argv[1]).run(lambda payload: {"status": "OK", "number": payload["number"]})
