"""``make bench`` measures the figures of docs/benchmarks.md, next to other queues. Not part of the distribution."""
