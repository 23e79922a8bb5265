"""The tutorial and the how-to pages: each is followed from top to bottom, as its reader does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import ROOT, Reader

PAGES = [ROOT / "docs" / "tutorial.md", *sorted(ROOT.glob("docs/howto/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_is_true(page: Path, tmp_path: Path) -> None:
    with Reader(tmp_path).following() as reader:
        reader.follow(page)
