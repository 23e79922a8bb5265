"""``make bench``: the figures of docs/benchmarks.md, measured beside other queues. Not part of the distribution."""
