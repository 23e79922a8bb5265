"""``make bench``: the figures that the README promises, measured against rivals. Not part of the distribution."""
