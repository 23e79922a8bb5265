"""``completion``: the scripts for shells, and what a shell completes from the database."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli.conftest import cli as cli
from cli.running import Cli, assert_wrong_usage

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.one_engine("the command line reads the same verbs on every engine")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(cli: Cli, shell: str) -> None:
    run = cli.run([*cli.line()[:-2], "completion", shell])
    assert (run.code, run.err) == (0, "")
    assert "_DBTASKQUEUE_COMPLETE" in run.out
    if found := shutil.which(shell):
        assert subprocess.run([found, "-n"], input=run.out, text=True, check=False).returncode == 0


def test_another_shell_is_wrong_usage(cli: Cli) -> None:
    assert_wrong_usage(cli("completion", "csh"), "csh")


def completed(cli: Cli, *words: str) -> list[str]:
    """Return what bash suggests after these words, asked as a user's bash asks."""
    program = (
        "import importlib; importlib.import_module('dbtaskqueue.cli.completion').PATIENCE = 60;"
        " from dbtaskqueue.cli import main; main(prog_name='dbtaskqueue')"
    )
    command = Path(cli.directory, "dbtaskqueue")
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)} "$@"\n')
    command.chmod(0o755)
    line = ["dbtaskqueue", *words]
    script = (
        f'PATH={shlex.quote(str(cli.directory))}:$PATH; eval "$(dbtaskqueue completion bash)"; '
        f"COMP_WORDS=({shlex.join(line)}); COMP_CWORD={len(words)}; _dbtaskqueue_completion dbtaskqueue; "
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    run = cli.run(["bash", "-c", script])
    assert (run.code, run.err) == (0, "")
    return run.out.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="NO bash IS INSTALLED: completion is not tested in it")
def test_bash_completes_commands_queues_states_and_ids(cli: Cli, queue: TaskQueue) -> None:
    tasks = [queue.enqueue(), queue.lane("mail").enqueue()]
    assert completed(cli, "sched") == ["schedules"]
    assert completed(cli, "list", "--url", queue.url, "--queue", "m") == ["mail"]
    assert completed(cli, "list", "--state", "ab") == ["abandoned"]
    assert completed(cli, "show", "--url", queue.url, "") == [str(task.id) for task in reversed(tasks)]  # of all queues
    assert completed(cli, "--url", queue.url, "cancel", "--queue", "mail", "") == [str(tasks[1].id)]


@pytest.mark.skipif(not shutil.which("bash"), reason="NO bash IS INSTALLED: completion is not tested in it")
def test_a_database_that_does_not_exist_is_not_made(cli: Cli, tmp_path: Path) -> None:
    assert completed(cli, "show", "--url", f"sqlite:///{tmp_path}/none.sqlite", "") == []
    assert not Path(tmp_path, "none.sqlite").exists()
    assert completed(cli, "show", "--url", "nonsense:", "") == []
