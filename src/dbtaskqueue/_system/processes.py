"""The source of information about processes on this system. It is chosen once, when this module is imported.

On Linux, it is the kernel. On other systems it is psutil, if installed; without psutil, the package can do less: see
``contract.py`` and ``psutil_.py``. The environment variable DBTASKQUEUE_SYSTEM (``linux``, ``psutil`` or ``none``)
chooses another source. It is internal: the tests use it, and the processes of a worker inherit it.
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
