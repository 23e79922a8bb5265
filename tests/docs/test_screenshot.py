"""docs/watch.svg is what ``dbtaskqueue watch`` shows today: drawing the same scene again gives the same picture."""

from __future__ import annotations

import runpy
from pathlib import Path
from xml.etree import ElementTree

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_shows_what_watch_shows(tmp_path: Path) -> None:
    screenshot = runpy.run_path(str(DOCS / "screenshot.py"))
    screenshot["main"](tmp_path / "watch.svg")
    drawn = (tmp_path / "watch.svg").read_text()
    shown = (DOCS / "watch.svg").read_text()
    assert screenshot["lines_of"](shown) == screenshot["lines_of"](drawn), "run: .venv/bin/python docs/screenshot.py"


def test_the_picture_can_be_shown_everywhere() -> None:
    """README shows it as an image, and browsers load no other files for an image."""
    shown = (DOCS / "watch.svg").read_text()
    assert ElementTree.fromstring(shown).tag.endswith("svg")
    assert "url(http" not in shown
    assert "<script" not in shown
