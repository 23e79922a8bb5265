"""The documents are true: their code runs, their links lead somewhere, what they name exists."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers import source_of

import dbtaskqueue
from dbtaskqueue.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITH_CODE = [path for path in DOCUMENTS if BLOCK.search(path.read_text())]
LINK = re.compile(r"\]\(([^)\s]+)\)")
TEST = re.compile(r"`((?:\w+/)+test_\w+\.py)::(\w+)`")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(name: str) -> str:
    return (ROOT / name).read_text()


def test_there_are_documents() -> None:
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/guarantees.md"} <= {
        *map(names, DOCUMENTS)
    }


@pytest.mark.parametrize("document", [path for path in WITH_CODE if path.name != "README.md"], ids=names)
def test_the_code_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks of one document run one after the other; what a comment promises is printed. README: test_readme.py."""
    monkeypatch.chdir(tmp_path)
    code = "\n".join(BLOCK.findall(document.read_text()))
    Path("document.py").write_text(code)
    runpy.run_path("document.py", run_name="document")
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


def anchors(document: Path) -> set[str]:
    """The anchors of its headings, as forges make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_tests_that_are_named_exist() -> None:
    named = TEST.findall(read("docs/guarantees.md")) + TEST.findall(read("docs/long-tasks.md"))
    assert len(named) > 60
    for file, function in named:
        tree = ast.parse(read(f"tests/{file}"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{function}"


def test_every_invariant_is_promised_and_checked_by_its_name() -> None:
    model = read("tests/model/test_model.py")
    for name in (
        "one_holder",
        "final_is_final",
        "acknowledged_exists",
        "token_rises",
        "attempts_bounded",
        "way_out",
        "drain_is_free",
    ):
        assert f"| `{name}` |" in read("docs/guarantees.md")
        assert f"def {name}(" in model


def test_every_command_is_described_and_every_command_described_exists() -> None:
    described = set(re.findall(r"`dbtaskqueue ([a-z]+)", read("docs/operating.md")))
    assert described == set(main.commands)
    for document in DOCUMENTS:
        text = document.read_text()
        assert set(re.findall(r"^dbtaskqueue ([a-z]+)", text, re.MULTILINE)) <= set(main.commands)


def test_every_event_is_described() -> None:
    described = read("docs/operating.md")
    for path in source_of().rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "event":
                text = "".join(re.findall(r"'([^'{]*)'?", ast.unparse(node.args[1]))).removeprefix(": ").strip()
                assert text in described, f"{path.name}: {text}"


def test_the_map_shows_every_module_and_package() -> None:
    described = read("docs/architecture.md")
    tree = described.partition("```")[2].partition("```")[0]
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ") and line[2] != " "}
    assert shown == {path.name for path in source_of().iterdir() if path.name != "__pycache__"}


def test_every_public_name_is_in_a_document() -> None:
    everything = "".join(document.read_text() for document in DOCUMENTS)
    internal = {
        "Attempt",
        "QueueInfo",
        "QueueStats",
        "TaskState",
        "WorkerInfo",
    }  # what comes back; their docstrings say all
    missing = {name for name in dbtaskqueue.__all__ if not re.search(rf"\b{name}\b", everything)}
    assert missing <= internal


def test_the_changelog_knows_the_version() -> None:
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
