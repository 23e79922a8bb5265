"""Task functions of a script have the same name in the script's own worker and in ``dbtaskqueue worker``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.engine("sqlite")

APP = """
import sys
from dbtaskqueue import TaskQueue, Worker, current_task

queue = TaskQueue()

@queue.task
def hello(who, again=False):
    if again:
        hello.enqueue(who)  # it has the same name in a child process of the script
    return f"hello {who}"

@queue.task
async def greet(who):
    return f"greetings, {who}"

if __name__ == "__main__":
    if "enqueue" in sys.argv:
        hello.enqueue("world", again=True)
        greet.enqueue("world")
    if "work" in sys.argv:
        Worker(queue, executor=sys.argv[-1]).run(burst=True)
"""

SPELLINGS = {
    "app.py": (["app.py"], "app"),
    "-m pkg.app": (["-m", "pkg.app"], "pkg.app"),
    "-m pkg": (["-m", "pkg"], "pkg.__main__"),
    "my-app.py": (["my-app.py"], "my-app"),
}
"""How the program is run, and the name under which its module is imported."""
EXECUTORS = ("thread", "process", "asyncio")


class Program:
    """The program in each of these places, with a database in ``$DBTASKQUEUE_URL``."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory = url, directory
        for name in ("app.py", "pkg/app.py", "pkg/__main__.py", "pkg/__init__.py", "my-app.py", "elsewhere/app.py"):
            path = directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("" if path.stem == "__init__" else APP)

    def python(self, *words: str, stdin: str = "") -> str:
        """Run Python in the directory; return what it printed."""
        environment = {**os.environ, "DBTASKQUEUE_URL": self.url, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *words],
            input=stdin,
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def worker(self, module: str, executor: str) -> None:
        """Let ``dbtaskqueue worker`` run everything that is due."""
        self.python("-m", "dbtaskqueue", "worker", "--burst", "--executor", executor, f"{module}:queue")

    def tasks(self) -> list[tuple[str | None, str, object]]:
        """The function, state and result of every task, oldest first."""
        with TaskQueue(self.url) as queue:
            return [(task.function, str(task.state), task.result) for task in reversed(queue.tasks())]


@pytest.fixture
def program(url: str, tmp_path: Path) -> Program:
    return Program(url, tmp_path)


@pytest.mark.parametrize(
    ("spelling", "executor"),
    [
        *(("app.py", executor) for executor in EXECUTORS),
        *(("-m pkg.app", executor) for executor in EXECUTORS),
        ("-m pkg", "process"),
        ("my-app.py", "process"),
    ],
)
def test_a_program_and_the_command_line_run_what_the_other_enqueues(
    program: Program, spelling: str, executor: str
) -> None:
    run, module = SPELLINGS[spelling]
    script = program.python
    imported = f"import importlib; app = importlib.import_module({module!r})"

    script(*run, "enqueue")
    program.worker(module, executor)
    script("-c", f"{imported}; app.hello.enqueue('again', again=True); app.greet.enqueue('again')")
    script(*run, "enqueue", "work", executor)

    found = sorted(program.tasks())
    hello, greet = f"{module}.hello", f"{module}.greet"
    expected = [(greet, "done", f"greetings, {who}") for who in ("again", "world", "world")]
    assert found == expected + [(hello, "done", f"hello {who}") for who in ("again",) * 2 + ("world",) * 4]


def test_a_program_in_another_directory_is_named_after_its_file(program: Program) -> None:
    """Python puts the script's directory on its path, not the current one, so ``elsewhere.app`` is not its name."""
    program.python("elsewhere/app.py", "enqueue")
    assert {function for function, _, _ in program.tasks()} == {"app.hello", "app.greet"}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_script_runs_the_functions_of_a_module_that_it_imports(program: Program, executor: str) -> None:
    program.python("app.py", "enqueue")
    worker = "from app import queue\nfrom dbtaskqueue import Worker\n"
    worker += f"if __name__ == '__main__': Worker(queue, executor={executor!r}).run(burst=True)\n"
    Path(program.directory, "work.py").write_text(worker)
    program.python("work.py")
    assert [state for _, state, _ in program.tasks()] == ["done"] * 3


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_program_runs_what_it_stored_under_the_name_of_0_1_0(program: Program, executor: str) -> None:
    with TaskQueue(program.url) as queue:
        queue.submit([{"args": ["you"], "kwargs": {}}], {}, "__main__.hello")
    program.python("app.py", "work", executor)
    assert program.tasks() == [("__main__.hello", "done", "hello you")]


def test_a_program_may_import_itself(program: Program) -> None:
    """There are then two copies of each function under one name, and one queue, which another module defines."""
    program.directory.joinpath("shared.py").write_text("from dbtaskqueue import TaskQueue\nqueue = TaskQueue()\n")
    program.directory.joinpath("app.py").write_text(
        "from shared import queue\n@queue.task\ndef hello(): return 1\n"
        "if __name__ == '__main__':\n    import app\n    hello.enqueue()\n"
    )
    program.python("app.py")
    program.worker("app", "process")
    assert program.tasks() == [("app.hello", "done", 1)]


def test_code_without_a_file_has_no_second_name(program: Program) -> None:
    code = (
        "from dbtaskqueue import TaskQueue, Worker\nqueue = TaskQueue()\n@queue.task\ndef hello(): return 1\n"
        "hello.enqueue()\nWorker(queue).run(burst=True)\n"
    )
    program.python("-c", code)
    program.python("-", stdin=code)
    assert program.tasks() == [("__main__.hello", "done", 1)] * 2


def test_a_profiled_program_is_named_after_its_file(program: Program) -> None:
    """cProfile runs it in a namespace that is not the module ``__main__``."""
    program.python("-m", "cProfile", "-o", "profile", "app.py", "enqueue")
    assert {function for function, _, _ in program.tasks()} == {"app.hello", "app.greet"}
