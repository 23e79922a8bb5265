"""The version of this package, for every layer; the build reads it from pyproject.toml."""

__version__ = "0.5.0"
