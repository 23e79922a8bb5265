"""Integrations with other libraries, a module or package for each. The core never imports them.

Each imports its library, and fails with ``pip install 'dbtaskqueue[NAME]'`` if that is missing. They use the public
names of this package, and those of ``aio``, ``coding``, ``extension`` and ``testing``.
"""

from __future__ import annotations


def missing(extra: str, error: ImportError) -> ImportError:
    """Return the error of an integration whose library cannot be imported: ``raise missing("flask", error) from None``.

    ``error`` stays the cause if it is of something that the library itself imports.
    """
    return ImportError(f"{error}; dbtaskqueue needs it here: pip install 'dbtaskqueue[{extra}]'", name=error.name)
