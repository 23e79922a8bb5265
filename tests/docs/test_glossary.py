"""The glossary is sorted, and has each state, outcome and operating command."""

from __future__ import annotations

import re
from pathlib import Path

from dbtaskqueue import TaskState

TEXT = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text()
TERMS = re.findall(r"^- \*\*([^*]+)\*\*: \S", TEXT, re.MULTILINE)


def test_terms_are_in_alphabetical_order() -> None:
    assert sorted(set(TERMS)) == TERMS
    assert len(TERMS) == TEXT.count("\n- ")


def test_each_term_has_one_sentence() -> None:
    for entry in TEXT.split("\n- ")[1:]:
        assert entry.rstrip().endswith("."), entry
        assert not re.search(r"[.!?] [A-Z]", entry), entry


def test_the_states_and_the_verbs_of_operators_are_explained() -> None:
    verbs = {"cancel", "retry", "suspend", "continue", "pause", "resume", "purge", "prune"}
    assert {*TaskState, *verbs} <= set(TERMS)
