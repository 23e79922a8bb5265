"""The source of what the package knows about processes on this system; chosen once, when this module is imported.

Linux answers itself. Elsewhere psutil does, if it is installed; without it, the package works with less: see
``contract.py`` and ``psutil_.py``. The environment variable DBTASKQUEUE_SYSTEM (``linux``, ``psutil`` or ``none``)
chooses another source. It is internal: for the tests, and inherited by the processes of a worker.
"""

from __future__ import annotations

import os
import sys

from .contract import System

_VARIABLE = "DBTASKQUEUE_SYSTEM"


def _choose() -> System:
    name = os.environ.get(_VARIABLE) or ("linux" if sys.platform.startswith("linux") else "psutil")
    if name == "linux":
        from .linux import Linux

        return Linux()
    if name == "psutil":
        try:
            from .psutil_ import Psutil
        except ImportError:
            return System()
        return Psutil()
    return System()


system = _choose()
