"""The catalogue of ``make mutants`` matches the code: each mutant applies, and its tests exist."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("catalogue", _TESTS / "mutants" / "catalogue.py")
assert _SPEC is not None
assert _SPEC.loader is not None
catalogue = importlib.util.module_from_spec(_SPEC)
sys.modules["catalogue"] = catalogue
_SPEC.loader.exec_module(catalogue)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(catalogue.ROOT, tmp_path_factory.mktemp("copy") / "dbtaskqueue")


def test_every_mutant_applies_to_the_present_code(package: Path) -> None:
    for mutant in catalogue.MUTANTS:
        file = package / mutant.file
        before = file.read_text()
        mutant.apply(package)
        assert file.read_text() != before, mutant.name
        file.write_text(before)


def test_the_names_differ_and_the_tests_exist() -> None:
    names = [mutant.name for mutant in catalogue.MUTANTS]
    assert len(set(names)) == len(names)
    assert not {test for mutant in catalogue.MUTANTS for test in mutant.tests if not _exists(test)}


def _exists(test: str) -> bool:
    file, *parts = test.split("::")
    path = _TESTS.parent / file
    return path.exists() and all(
        f" {part}(" in path.read_text() or f"class {part}:" in path.read_text() for part in parts
    )


def test_there_are_enough_mutants() -> None:
    assert len(catalogue.MUTANTS) >= 60
