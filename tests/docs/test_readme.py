"""README as readers use it: its links, the first screen, each block pasted alone, the server section line by line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer

from dbtaskqueue import TaskQueue
from dbtaskqueue._formats.url import DEFAULT_URL

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PROGRAMS = Path(sys.executable).parent


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a user who has activated the virtual environment."""
    return {"PATH": f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", **variables}


def run(command: list[str], directory: Path, variables: dict[str, str]) -> str:
    """Run a command, which must succeed; return what it prints."""
    done = subprocess.run(
        command, cwd=directory, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_first_screen_has_the_commands_to_try() -> None:
    screen = README.splitlines()[:60]
    assert screen[0] == "# dbtaskqueue"
    commands = [line.partition("#")[0].strip() for line in screen]
    positions = [commands.index(line) for line in ("git clone … && cd dbtaskqueue", "make demo", "make test")]
    assert positions == sorted(positions)
    needs = next(line for line in screen if "make," in line)
    assert all(word in needs for word in ("git", "make", "python3 ≥ 3.11", "pip"))


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_every_link_is_absolute_and_leads_to_a_page_of_the_site_or_a_file() -> None:
    """PyPI shows README without the other files of the project."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    pages = re.findall(r"^([\w/-]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    definitions = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", README, re.MULTILINE))
    text = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL).partition("\n[documentation badge]:")[0]
    used = re.findall(r"\]\[([^\]]+)\]", text) + re.findall(r"(?<!\])\[([^\[\]!]+)\](?![\[(:])", text)
    assert {name.lower() for name in used} == set(definitions), "each definition is used, each use is defined"
    for link in definitions.values():
        if link.startswith(urls["Documentation"]):
            page = link.removeprefix(urls["Documentation"]).removesuffix(".html")
            assert page in ["", *pages], link
        elif link.startswith(urls["Repository"]):
            _, _, file = link.removeprefix(f"{urls['Repository']}/").split("/", 2)
            assert (ROOT / file).is_file(), link
        else:
            assert link.startswith("https://img.shields.io/badge/"), link
    assert not re.search(r"\]\((?!https://)", text)


def test_figures_are_those_of_the_benchmarks() -> None:
    """Each figure of the section about speed is a rounded figure of docs/benchmarks.md."""
    speed = README.partition("\n## Speed\n")[2].partition("\n## ")[0]
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    for figure, exact in {
        "57,000": "56,768",
        "23 times": "23.1 ×",
        "38,000": "37,835",
        "2.2 times": "2.17 ×",
        "3 to 4 ms": "2.89 ms",
        "0.1 %": "0.10 % of a core",
    }.items():
        assert figure in speed
        assert exact in measured


def test_the_commands_of_the_benchmarks_exist() -> None:
    named = re.findall(r"make bench ARGS=(?:\"([^\"]*)\"|([\w.]+))", (ROOT / "docs" / "benchmarks.md").read_text())
    words = {word for found in named for word in "".join(found).split()}
    assert len(words) > 15
    tree = ast.parse((ROOT / "bench" / "__main__.py").read_text())
    constants = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("GROUPS", "ON_SERVERS")
    }
    on_servers = {f"{engine}.{part}" for engine, parts in constants["ON_SERVERS"].items() for part in parts}
    assert words <= {*constants["GROUPS"], *constants["ON_SERVERS"], *on_servers}


def first_words(code: str) -> str:
    """Return a test id for a block: what it defines or enqueues first."""
    found = re.search(r"^def (\w+)|^(?:\w+ = )?(queue\.enqueue|connection\b)", code, re.MULTILINE)
    return found[0].split()[-1] if found else "block"


@pytest.mark.parametrize("code", BLOCKS, ids=first_words)
def test_each_block_runs_when_pasted_alone(code: str, tmp_path: Path) -> None:
    """It runs in an empty directory and a fresh interpreter, and prints what its comments say."""
    Path(tmp_path, "pasted.py").write_text(code)
    promised = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert run([sys.executable, "pasted.py"], tmp_path, environment()).splitlines() == promised


def test_the_ten_lines_and_the_command_line_use_the_same_file(tmp_path: Path) -> None:
    Path(tmp_path, "pasted.py").write_text(BLOCKS[0])
    run([sys.executable, "pasted.py"], tmp_path, environment())
    assert "done" in run(["dbtaskqueue", "show", "1"], tmp_path, environment())
    file = DEFAULT_URL.removeprefix("sqlite:///")
    assert (tmp_path / file).exists()
    assert f"the file {file}" in BLOCKS[0]


def test_the_module_of_task_functions_is_served_by_the_command_line(tmp_path: Path) -> None:
    """The block works as a file that is run, and as one that is imported."""
    [code] = [block for block in BLOCKS if "pictures.sqlite" in block]
    [command] = re.findall(r"`(dbtaskqueue [^`]*worker\spictures:queue[^`]*)`", README)
    Path(tmp_path, "pictures.py").write_text(code)
    run([sys.executable, "pictures.py"], tmp_path, environment())
    with TaskQueue(f"sqlite:///{tmp_path}/pictures.sqlite", "pictures") as queue:
        later, now = queue.tasks()
        assert (later.function, now.function) == ("pictures.thumbnail", "pictures.thumbnail")
        queue.retry(now.id)
        run([*command.split(), "--burst"], tmp_path, environment())
        assert [task.state for task in queue.tasks()] == ["pending", "done"], "an import enqueues nothing"


SUDO = """#!/bin/sh
# stands for sudo: the user of the tests is already the administrator of the servers
test "$1" != -u || shift 2
exec "$@"
"""


def commands_for(engine: str) -> str:
    """Return the commands of the section *On a server* for one engine."""
    section = README.partition("\n## On a server\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if f"={engine}://" in block)


def follow(engine: str, port: int, directory: Path, variables: dict[str, str]) -> tuple[str, TaskQueue]:
    """Run the lines of the section unchanged, except for the installation and the server's port."""
    sudo = directory / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    install, *lines = commands_for(engine).splitlines()
    # The installation is left out: the script uses the packages of this checkout.
    assert f"pip --python .venv/bin/python install --editable '.[{engine}]'" in install
    script = "\n".join(["set -e", *lines]).replace("@localhost/", f"@127.0.0.1:{port}/")
    known = environment(**variables)
    out = run(["sh", "-c", script], directory, {**known, "PATH": f"{directory}:{known['PATH']}"})
    [url] = re.findall(r"^export DBTASKQUEUE_URL=(\S+)$", script, re.MULTILINE)
    return out, TaskQueue(url, create=False)


def check(out: str, queue: TaskQueue) -> None:
    with queue:
        [task] = queue.tasks()
        assert (task.id, task.state, task.payload) == (1, "done", {"text": "hello"})
        assert task.attempts()[0].output == "{'text': 'hello'}\n"
    lines = out.splitlines()
    assert "1" in lines, "the id that enqueue prints"
    assert any(line.startswith("engine") for line in lines), "the output of doctor"


def test_the_server_section_works_in_its_order_on_a_fresh_postgresql(tmp_path: Path) -> None:
    with PostgresServer(durable=False) as server:
        access = server.data / "pg_hba.conf"
        access.write_text(f"host all tasks 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        server.configure()
        variables = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
        path = f"{PROGRAMS}:{server.programs}:/usr/bin:/bin"
        out, queue = follow("postgresql", server.port, tmp_path, {**variables, "PATH": path})
        assert "CREATE ROLE\nCREATE DATABASE\n" in out
        check(out, queue)


def test_the_server_section_works_in_its_order_on_a_fresh_mariadb(tmp_path: Path) -> None:
    with MariaDBServer(durable=False) as server:
        Path(tmp_path, ".my.cnf").write_text(f"[client]\nuser=root\nsocket={server.socket}\n")
        check(*follow("mariadb", server.port, tmp_path, {"HOME": str(tmp_path)}))
