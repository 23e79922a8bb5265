"""One run of a worker: the loop, its membership among the workers, and its batches."""
