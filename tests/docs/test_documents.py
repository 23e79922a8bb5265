"""The documents are correct: their code runs, their links work, and the names in them exist."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dbtaskqueue
from dbtaskqueue.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```(sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLLOWED = {
    "README.md",
    "tutorial.md",
    "production-checklist.md",
    *(path.name for path in ROOT.glob("docs/howto/*.md")),
}
"""Pages that test_readme.py and test_howto.py test as a whole."""
WITH_CODE = [path for path in DOCUMENTS if path.name not in FOLLOWED and BLOCK.search(path.read_text())]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_there_are_documents() -> None:
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/concepts/delivery.md"} <= {
        *map(names, DOCUMENTS)
    }


@pytest.mark.parametrize("document", WITH_CODE, ids=names)
def test_the_code_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks of a document run in order and print what their comments say. test_readme.py does this for README."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(BLOCK.findall(document.read_text()))
    Path("document.py").write_text(code)
    runpy.run_path("document.py", run_name="document")
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings in a page, as GitHub generates them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_work(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_command_that_is_named_exists() -> None:
    """This test omits docs/reference/command-line.md, which is generated and has all of them."""
    for document in DOCUMENTS:
        for language, block in SHELL.findall(document.read_text()):
            prompt = r"\$ " if language == "console" else ""
            assert set(re.findall(rf"^{prompt}dbtaskqueue ([a-z]+)", block, re.MULTILINE)) <= set(main.commands)


def test_every_public_name_is_in_a_document() -> None:
    everything = "".join(document.read_text() for document in DOCUMENTS)
    internal = {
        "Attempt",
        "QueueInfo",
        "QueueStats",
        "TaskState",
        "WorkerInfo",
    }  # types of results; their docstrings are complete
    missing = {name for name in dbtaskqueue.__all__ if not re.search(rf"\b{name}\b", everything)}
    assert missing <= internal


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert f"## {version}" in read("CHANGELOG.md")


def test_task_functions_in_a_module(tmp_path: Path) -> None:
    environment = {"DBTASKQUEUE_URL": f"sqlite:///{tmp_path}/pictures.sqlite", "PATH": "/usr/bin:/bin"}

    def run(*command: str) -> str:
        words = [sys.executable, *command]
        return subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout

    assert run("examples/pictures.py", "a.png", "b.png") == "task 1\ntask 2\n"
    assert run("examples/pictures.py", "a.png") == "task 1\n", "the same key: the same task"
    assert run("-m", "dbtaskqueue", "worker", "--burst", "examples.pictures:queue") == ""
    for number, path in ((1, "a.png"), (2, "b.png")):
        assert f"attempt 1 at {path}\n" in run("-m", "dbtaskqueue", "show", str(number))
