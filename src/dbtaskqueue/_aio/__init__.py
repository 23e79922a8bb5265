"""The parts of ``aio.py``: calls in threads, waiting fetches, and tasks whose methods are awaited."""
