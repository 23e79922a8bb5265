"""The table of transitions equals that of the design page."""

from __future__ import annotations

from typing import get_args

from dbtaskqueue import TaskState
from dbtaskqueue.states import FINAL, TRANSITIONS, UNFINISHED, StateName, sources

# verb: (from, to, by the holder only, new token), as on the design page
DESIGN = {
    "fetch": [("pending failed", "reserved", False, True)],
    "start": [("reserved", "running", True, False)],
    "finish": [("running", "done", True, False)],
    "fail": [("running", "failed abandoned cancelled", True, False)],
    "release": [("reserved", "pending", True, False), ("running", "pending cancelled", True, False)],
    "cancel": [("pending failed reserved", "cancelled", False, True), ("running", "", False, False)],
    "rescue": [("reserved", "pending", False, True), ("running", "failed abandoned cancelled", False, True)],
    "retry": [("failed abandoned cancelled done", "pending", False, True)],
    "reschedule": [("pending", "pending", False, False), ("failed", "failed", False, False)],
    "delete": [("done cancelled abandoned", "", False, False)],
    "purge": [("pending reserved running failed", "abandoned", False, True)],
}
# what dependencies and expiry add
FLOW = {
    "expire": [("pending failed", "abandoned", False, True), ("reserved", "abandoned", True, True)],
    "disappoint": [("pending", "cancelled", False, True)],
    "block": [("reserved", "pending", False, True)],
}


def test_the_states() -> None:
    words = ["pending", "reserved", "running", "failed", "done", "cancelled", "abandoned"]
    assert [str(state) for state in TaskState] == words
    assert list(get_args(StateName)) == words
    assert all(state == word and f"{state}" == word for state, word in zip(TaskState, words, strict=True))


def test_the_table_is_that_of_the_design_page() -> None:
    wanted = {
        (verb, source, frozenset(targets.split()), by_holder, new_token)
        for verb, rows in (DESIGN | FLOW).items()
        for places, targets, by_holder, new_token in rows
        for source in places.split()
    }
    found = {(a.verb, str(a.source), frozenset(map(str, a.targets)), a.by_holder, a.new_token) for a in TRANSITIONS}
    assert found == wanted
    assert len(TRANSITIONS) == len(wanted)


def test_a_verb_has_one_meaning_in_each_state() -> None:
    pairs = [(arrow.verb, arrow.source) for arrow in TRANSITIONS]
    assert len(pairs) == len(set(pairs))


def test_final_is_final_but_for_an_operator() -> None:
    assert {"done", "cancelled", "abandoned"} == FINAL
    assert {arrow.verb for arrow in TRANSITIONS if arrow.source in FINAL} == {"retry", "delete"}
    assert set(TaskState) == FINAL | UNFINISHED
    assert not FINAL & UNFINISHED


def test_the_token_increases_whenever_a_claim_is_taken_away() -> None:
    held = {TaskState.RESERVED, TaskState.RUNNING}
    for arrow in TRANSITIONS:
        taken = arrow.source in held and arrow.targets and not arrow.targets & held and not arrow.by_holder
        assert not taken or arrow.new_token, arrow


def test_every_state_can_be_reached_and_left() -> None:
    reached = {TaskState.PENDING}.union(*(arrow.targets for arrow in TRANSITIONS))
    assert reached == set(TaskState)
    assert {arrow.source for arrow in TRANSITIONS} == set(TaskState)


def test_sources() -> None:
    assert sources("fetch") == {"pending", "failed"}
    assert sources("nothing") == frozenset()
