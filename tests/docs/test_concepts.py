"""The pages about concepts name tests that exist, and every state, transition and invariant."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dbtaskqueue.states import TRANSITIONS, TaskState

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("docs/concepts/*.md"))
TEST = re.compile(r"`((?:\w+/)+test_\w+\.py)::(\w+)`")
INVARIANTS = (
    "one_holder",
    "final_is_final",
    "acknowledged_exists",
    "token_rises",
    "attempts_bounded",
    "way_out",
    "drain_is_free",
    "no_early_child",
    "no_orphan",
)


def page(name: str) -> str:
    return (ROOT / "docs" / "concepts" / f"{name}.md").read_text()


def test_the_four_pages_exist() -> None:
    assert [path.stem for path in PAGES] == ["delivery", "executors", "liveness", "long-tasks"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_tests_that_a_page_names_exist(path: Path) -> None:
    named = TEST.findall(path.read_text())
    assert len(named) > 15
    for file, function in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{function}"


def test_every_invariant_is_stated_and_checked_under_its_name() -> None:
    model = (ROOT / "tests" / "model" / "test_model.py").read_text()
    stated = re.findall(r"^\| `(\w+_\w+)` \| ", page("delivery").partition("## Invariants")[2], re.MULTILINE)
    assert stated == list(INVARIANTS)
    for name in INVARIANTS:
        assert f"def {name}(" in model


def table(heading: str) -> list[list[str]]:
    """Return the rows of the tables in a section of the page about delivery, without the headings."""
    section = page("delivery").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def test_every_state_is_described() -> None:
    described = [row[0].strip("`") for row in table("States") if row[0].startswith("`")]
    assert described == [str(state) for state in TaskState]


def test_every_transition_is_described() -> None:
    """Each verb's row names the states that the one table in states.py allows."""
    words = "|".join(TaskState)
    described: dict[tuple[str, str], set[str]] = {}
    for row in table("States"):
        if row[0].isalpha() and len(row) == 4:
            verb, source, target, _ = row
            for state in re.findall(words, source.partition(",")[0] if "worker is dead" in source else source):
                kept = {state} if verb == "reschedule" else set[str]()
                described[verb, state] = set(re.findall(words, target)) - {state} | kept
    expected = {(arrow.verb, str(arrow.source)): {str(word) for word in arrow.targets} for arrow in TRANSITIONS}
    # a request to cancel turns these into "cancelled"; the page says so in a sentence
    for key, targets in expected.items():
        if key[0] in {"fail", "release", "rescue"}:
            targets.discard("cancelled")
    assert described == expected
