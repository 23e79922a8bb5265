"""``python -m dbtaskqueue`` is the command ``dbtaskqueue``."""

from .cli import main

main(prog_name="dbtaskqueue")
