"""The schema of the queue: migration N leads to version N of the schema."""
