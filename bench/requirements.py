"""Print the requirements of the dependency groups named on the command line (an old pip knows no groups)."""

import sys
import tomllib
from pathlib import Path

groups = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["dependency-groups"]
print(*(requirement for name in sys.argv[1:] for requirement in groups[name]))
