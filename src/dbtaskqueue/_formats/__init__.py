"""How a value is written: payloads, progress, output, limits, command lines, URLs. Pure."""
