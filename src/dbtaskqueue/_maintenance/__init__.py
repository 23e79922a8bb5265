"""What a worker does besides tasks. One duty for each file, and one loop that runs them."""
