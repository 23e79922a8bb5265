"""``make mutants``: break the code on purpose, one fault at a time, and check that the tests notice.

Each mutant of ``catalogue.py`` is applied to a copy of the package, and the tests that should notice run against that
copy. A mutant that no test notices has survived; then this exits with 1.

Options: ``-k TEXT`` takes only mutants whose name contains the text, ``--at-once N`` runs N at the same time,
``--list`` shows the names.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from catalogue import MUTANTS, ROOT, Mutant

_LONGEST = 300
"""Seconds for the tests of one mutant; a fault that makes them hang is noticed, too."""
_FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py::\S+)", re.MULTILINE)


def main() -> int:
    """Run the selected mutants; return 1 if one survived."""
    parser = argparse.ArgumentParser(prog="make mutants", description="See the tests notice deliberate faults.")
    parser.add_argument("-k", default="", metavar="TEXT", help="only mutants whose name contains this text")
    # Half of the time is spent in tests that wait for what never happens.
    parser.add_argument("--at-once", type=int, default=2 * (os.cpu_count() or 1), metavar="N")
    parser.add_argument("--list", action="store_true", help="show the names and run nothing")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.k in mutant.name]
    if options.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    if not chosen:
        parser.error(f"no mutant has {options.k!r} in its name")
    with ThreadPoolExecutor(options.at_once) as pool:
        survivors = [mutant for mutant, killed in zip(chosen, pool.map(_try, chosen), strict=True) if not killed]
    print(f"{len(chosen)} mutants: {len(chosen) - len(survivors)} killed, {len(survivors)} survived")
    for mutant in survivors:
        print(f"SURVIVED: {mutant.name} ({mutant.file})")
    return 1 if survivors else 0


def _try(mutant: Mutant) -> bool:
    """Return whether the tests notice the fault."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        package = Path(directory, "dbtaskqueue")
        shutil.copytree(ROOT, package, ignore=shutil.ignore_patterns("__pycache__"))
        mutant.apply(package)
        outcome, by = _run_tests(mutant, directory)
    print(f"{outcome:8} {time.monotonic() - started:5.1f} s  {mutant.name}{by and f' ({by})'}", flush=True)
    return outcome == "killed"


def _run_tests(mutant: Mutant, directory: str) -> tuple[str, str]:
    """Return the fate of the mutant, and the test that noticed it."""
    select = ["-k", mutant.only] if mutant.only else []
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--timeout=60",
        *select,
        *mutant.tests,
    ]
    environment = {**os.environ, "PYTHONPATH": directory}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return "killed", f"nothing ended within {_LONGEST} s"
    if done.returncode == 1:
        failed = _FIRST_FAILURE.search(done.stdout)
        return "killed", failed[1][:120] if failed else ""
    if done.returncode == 0:
        return "SURVIVED", ""
    print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return "BROKEN", ""  # pytest itself could not run, so no test has noticed the fault


if __name__ == "__main__":
    sys.exit(main())
