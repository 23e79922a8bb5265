"""Print the requirements of the dependency groups named on the command line (an old pip knows no groups).

With ``--oldest``: the lowest versions that the extras and the group "integrations" allow on this Python, and of each
named group only the packages that are not among them.
"""

import re
import sys
import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
_GROUPS = _PROJECT["dependency-groups"]
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[^]]*\])?>=(?P<lowest>[\w.]+)")
_NEEDS = {"django": (3, 12)}
"""Libraries that need a newer Python than this project."""


def newest(groups: list[str]) -> list[str]:
    """Return the requirements of these groups."""
    return [requirement for group in groups for requirement in _GROUPS[group]]


def oldest(groups: list[str]) -> list[str]:
    """Return the lowest versions of what users install, and the requirements of the groups apart from these."""
    extras = [each for extra in _PROJECT["project"]["optional-dependencies"].values() for each in extra]
    lowest: dict[str, tuple[tuple[int, ...], str]] = {}
    for requirement in [*extras, *_GROUPS["integrations"]]:
        found = _REQUIREMENT.match(requirement)
        if found is not None and sys.version_info >= _NEEDS.get(found["name"], (3,)):
            number = tuple(map(int, re.findall(r"\d+", found["lowest"])))
            pin = f"{found['name']}{found['extras'] or ''}=={found['lowest']}"
            lowest[found["name"]] = max(lowest.get(found["name"], ((), "")), (number, pin))
    others = [each for each in newest(groups) if _name(each) not in lowest]
    return [*(pin for _, pin in lowest.values()), *others]


def _name(requirement: str) -> str:
    found = _REQUIREMENT.match(requirement)
    return requirement if found is None else found["name"]


if __name__ == "__main__":
    names = [name for name in sys.argv[1:] if name != "--oldest"]
    print(*(oldest(names) if "--oldest" in sys.argv else newest(names)))
