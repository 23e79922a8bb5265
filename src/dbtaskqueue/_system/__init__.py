"""What the machine offers: clocks, processes, signals, the log, systemd. This package does not know tasks."""
