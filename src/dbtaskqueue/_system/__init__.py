"""What the machine offers: clocks, processes, signals, the log, systemd. Knows nothing of tasks."""
