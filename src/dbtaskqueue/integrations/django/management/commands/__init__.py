"""The management command ``dbtaskqueue``."""
