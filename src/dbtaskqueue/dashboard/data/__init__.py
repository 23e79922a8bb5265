"""What pages and answers show, as plain values. No HTML, no HTTP."""
