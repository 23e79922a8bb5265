"""The documentation site: ``make docs`` builds it into docs/_build/html, without a network and with warnings as errors.

Pages are Markdown that also reads well on a forge. Links to files outside of docs/ work in both: here they are turned
into links to the repository.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation

import dbtaskqueue

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
import commands  # noqa: E402

ROOT = DOCS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]

project = "dbtaskqueue"
author = "the dbtaskqueue maintainers"
version = release = PROJECT["version"]
highlight_language = "text"  # of blocks that name none
smartquotes_action = "q"  # dashes begin options
html_title = f"dbtaskqueue {release}"

extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_mock_imports = ["opentelemetry", "sentry_sdk"]  # what integrations import is not installed for the site
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
nitpicky = True
# the standard library has no pages here, and an inventory of it would have to be downloaded
nitpick_ignore_regex = [("py:.*", r"(?!dbtaskqueue\.).*"), ("py:.*", r"dbtaskqueue\..*\.([A-Z](_co)?|\w*Options)")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
html_copy_source = False

PUBLIC = "|".join(name for name in dbtaskqueue.__all__ if name[0].isupper())
NAMED = re.compile(
    rf"``({PUBLIC}|current_task)``|(?<![\w`.:~])({PUBLIC})(?![\w`.])(?<!\bTask)(?<!\bWorker)(?<!\bProgress)"
)
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")


def setup(app: Sphinx) -> None:
    for module in {getattr(dbtaskqueue, name).__module__ for name in dbtaskqueue.__all__} | {"dbtaskqueue.functions"}:
        analyzer = ModuleAnalyzer.for_module(module)
        analyzer.analyze()
        analyzer.overloads.clear()  # types for a type checker: the signature that readers want is below them
    app.connect("source-read", complete_page)
    app.connect("include-read", translate_links_of_included_file)
    app.connect("autodoc-process-docstring", link_public_names)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("missing-reference", find_public_name)


def complete_page(app: Sphinx, page: str, content: list[str]) -> None:
    content[0] = with_links(content[0], DOCS / page, DOCS / page)
    if page == "reference/command-line":
        content[0] += "\n" + commands.reference()


def translate_links_of_included_file(app: Sphinx, included: Path, page: str, content: list[str]) -> None:
    content[0] = with_links(content[0], (DOCS / included).resolve(), DOCS / page)


def with_links(text: str, source: Path, page: Path) -> str:
    """Translate the links of *source* for the page that shows it; what is not on the site is in the repository."""

    def translated(match: re.Match[str]) -> str:
        label, link = match.groups()
        path, _, anchor = link.partition("#")
        target = (source.parent / path).resolve()
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        if target.is_relative_to(DOCS):
            path = os.path.relpath(target, page.parent)
        elif target.name in ("CHANGELOG.md", "CONTRIBUTING.md"):
            path = os.path.relpath(DOCS / target.name.lower(), page.parent)
        else:
            kind = "tree" if target.is_dir() else "blob"
            path = f"{REPOSITORY}/{kind}/main/{target.relative_to(ROOT)}"
        return f"{label}({path}{'#' if anchor else ''}{anchor})"

    return LINK.sub(translated, text)


def find_public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Any) -> nodes.Node | None:
    """Find the page of a public name that an annotation gives with the module in which the class is defined."""
    target: str = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if not target.startswith("dbtaskqueue.") or name not in dbtaskqueue.__all__:
        return None
    python = env.domains["py"]
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", f"dbtaskqueue.{name}", node, content)


def link_public_names(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn public names in a docstring into links, where they are written as code or cannot be another word."""
    here = name.rpartition(".")[2]
    for index, line in enumerate(lines):
        lines[index] = NAMED.sub(lambda found: _link(found[1] or found[2], here) or found[0], line)


def _link(name: str, here: str) -> str:
    return "" if name == here else f":py:obj:`~dbtaskqueue.{name}`"


def shorten_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Write the default policy as its constructor, and the options that ``**options`` takes by their names."""
    if not signature:
        return signature, result
    signature = signature.replace(repr(dbtaskqueue.RetryPolicy()), "RetryPolicy()")
    signature = re.sub(r"(\*\*?\w+): [~\w.]*\bP\b(\.\w+)?", r"\1", signature)  # of a ParamSpec
    found = re.search(r"\*\*options: [\w.~]*Unpack\[[\w.~]*?(\w+)\]", signature)
    if found:
        hints = get_type_hints(getattr(sys.modules[thing.__module__], found[1]))
        named = ", ".join(f"{word}: {stringify_annotation(kind, 'smart')} = ..." for word, kind in hints.items())
        star = "" if "*, " in signature.partition("**options")[0] else "*, "
        signature = signature.replace(found[0], f"{star}{named}")
    # the internal base of Task and of what Flow.add returns
    return signature.replace("dbtaskqueue.dependencies.Reference", "dbtaskqueue.Task"), result
