"""Markdown for docs/reference/command-line.md, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from dbtaskqueue.cli import main

OPTION = re.compile(r"(?<![\w`-])(--[a-z][\w-]*)")
DEFAULT = re.compile(r" +\[(default: .*|[\dx<=]+)\]$")


def reference() -> str:
    """A section for each group of commands, as in ``dbtaskqueue --help``, and in it one for each command."""
    names = main.context_settings["help_option_names"]  # click keeps the help option of the first context of a command
    context = click.Context(main, info_name="dbtaskqueue", help_option_names=names)
    lines: list[str] = []
    for title, names in _groups(context):
        lines += [f"## {title}", ""]
        for name in names:
            lines += _command(main.commands[name], context)
            if isinstance(group := main.commands[name], click.Group):
                parent = click.Context(group, info_name=name, parent=context)
                for command in group.commands.values():
                    lines += _command(command, parent)
    return "\n".join(lines)


def _groups(context: click.Context) -> Iterator[tuple[str, list[str]]]:
    """The titles and the commands of the sections of the help."""
    for section in main.get_help(context).split("\n\n"):
        title, _, entries = section.partition(":\n")
        names = re.findall(r"^  ([\w-]+)  ", entries, re.MULTILINE)
        if names and set(names) <= set(main.commands):
            yield title, names


def _command(command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent, show_default=True)
    is_main = parent.parent is None
    yield f"### {command.name}" if is_main else f"#### {parent.info_name} {command.name}"
    yield ""
    yield from (_code(line.strip()) for line in (command.help or "").splitlines())
    yield from ("", "```text", " ".join([context.command_path, *command.collect_usage_pieces(context)]), "```", "")
    for parameter in command.get_params(context):  # an argument is described in the text, and has no help
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in record[0]:
            yield from _option(*record)
    if command.epilog:
        examples = command.epilog.replace("\b", "").strip().removeprefix("Examples:\n")
        yield from ("", "```sh", *(line.removeprefix("  ") for line in examples.splitlines()), "```")
    yield ""


def _option(names: str, text: str) -> Iterator[str]:
    """An entry of a definition list."""
    found = DEFAULT.search(text)
    default = f" ({found[1]})" if found and found[1].startswith("default") else ""
    yield from (f"`{names}`", f": {_code(DEFAULT.sub('', text))}{_code(_shortened(default))}", "")


def _shortened(default: str) -> str:
    """Without click's notation of a range."""
    return re.sub(r"; [-\dx<=]+\)$", ")", default)


def _code(text: str) -> str:
    text = text.replace("<", "&lt;").replace("*", r"\*")
    return OPTION.sub(r"`\1`", re.sub(r"(\$?\bDBTASKQUEUE_\w+)", r"`\1`", text))
