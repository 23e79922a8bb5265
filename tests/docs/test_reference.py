"""The reference is complete: log events, commands, options and environment variables.

Other tests check public names (unit/test_public.py), columns (conformance/test_documented_schema.py) and the options
of a URL (``documented_options`` in helpers.py).
"""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
from helpers import source_of

from dbtaskqueue.cli import main

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


class Event(NamedTuple):
    """A call of ``event`` in the source. ``pattern``: a regular expression for its text."""

    place: str
    pattern: str
    level: str | None
    fields: frozenset[str]


class Described(NamedTuple):
    """An event on the page, with everything in its entry."""

    text: str
    entry: str


def emitted() -> list[Event]:
    found = []
    for path in source_of().rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("event", "log.event") and len(node.args) > 1:
                level, text = node.args
                fields = {word.arg for word in node.keywords if word.arg} - {"exc_info", "stack"}
                found += [
                    Event(f"{path.name}:{node.lineno}", pattern, _level(level), frozenset(fields))
                    for pattern in _patterns(text, ast.parse(path.read_text()))
                ]
    return found


def _level(node: ast.expr) -> str | None:
    """Return the level that the call names, or the default."""
    return node.attr if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("logging.") else None


def _patterns(node: ast.expr, module: ast.Module) -> Iterator[str]:
    """Return patterns for the text of an event. For a variable: one for each value that the module assigns to it."""
    if isinstance(node, ast.Constant):
        yield re.escape(str(node.value))
    elif isinstance(node, ast.JoinedStr):
        yield "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in node.values)
    elif isinstance(node, ast.Name):
        for statement in ast.walk(module):
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == node.id:
                yield from _patterns(statement.value, module)


def described() -> list[Described]:
    text = (REFERENCE / "log-events.md").read_text()
    entries = re.findall(r"^- (.*?)(?=\n- |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return [
        Described(name, " ".join(entry.split())) for entry in entries for name in re.findall(r"\*\*`(.*?)`\*\*", entry)
    ]


def test_every_event_is_described_with_its_level_and_fields() -> None:
    events = emitted()
    assert len(events) > 25
    texts = [known.text for known in described()]
    assert [event.pattern for event in events if not any(re.fullmatch(event.pattern, text) for text in texts)] == []
    for event in events:
        entries = [known.entry for known in described() if re.fullmatch(event.pattern, known.text)]
        assert event.level is None or any(re.search(rf"\b{event.level}\b", entry) for entry in entries), event
        fields = set(re.findall(r"`(\w+)`", " ".join(entry.partition("Fields")[2] for entry in entries)))
        assert event.fields <= fields, event


def test_every_event_that_is_described_exists() -> None:
    patterns = [event.pattern for event in emitted()]
    texts = [known.text for known in described()]
    assert [text for text in texts if not any(re.fullmatch(pattern, text) for pattern in patterns)] == []


def test_every_command_and_option_is_described() -> None:
    """docs/commands.py generates that part of the page about the command line."""
    text = runpy.run_path(str(REFERENCE.parent / "commands.py"))["reference"]()
    sections = dict(re.findall(r"^### ([\w-]+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(main.commands)
    for name, section in sections.items():
        entries = re.findall(r"^`(-.*)`$", section, re.MULTILINE)
        options = [
            word for option in main.commands[name].params if isinstance(option, click.Option) for word in option.opts
        ]
        assert sorted(word for entry in entries for word in re.findall(r"--?\w[\w-]*", entry)) == sorted(options)
        assert f"dbtaskqueue {name} [OPTIONS]" in section


def test_every_environment_variable_is_described() -> None:
    """The variables of options are not listed: their names follow a rule."""
    page = (REFERENCE / "configuration.md").read_text()
    assert "`DBTASKQUEUE_COMMAND_OPTION`" in page
    of_options = tuple(f"DBTASKQUEUE_{command.upper()}_" for command in main.commands)
    internal = {
        f"DBTASKQUEUE_{name}" for name in ("FORK_SERVER", "FLASK_APP", "RELOADER", "SYSTEM")
    }  # for children; tests
    for path in source_of().rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = str(node.value) if isinstance(node, ast.Constant) else ""
            if re.fullmatch(r"DBTASKQUEUE_[A-Z_]*[A-Z]", name) and not name.startswith(of_options):
                assert name in internal or f"`{name}`" in page, f"{path.name}: {name}"
