"""Templates and static files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .messages import said
from .words import FILTERS

if TYPE_CHECKING:
    from .call import Call

_HERE = Path(__file__).parent
THEMES = ("system", "light", "dark")
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Static:
    """The static files, in memory. The URL of each has a hash of its content."""

    def __init__(self) -> None:
        paths = [path for path in (_HERE / "static").iterdir() if path.suffix in _KINDS]
        self._files = {path.name: (path.read_bytes(), _KINDS[path.suffix]) for path in paths}
        self._hashes = {name: hashlib.sha256(content).hexdigest()[:16] for name, (content, _) in self._files.items()}

    def path(self, name: str) -> str:
        """Return the path of a file below the dashboard."""
        return f"/static/{self._hashes[name]}/{name}"

    def find(self, hash: str, name: str) -> tuple[bytes, str] | None:
        """Return the content and the type of a file, or None."""
        return self._files[name] if self._hashes.get(name) == hash else None


def frame(call: Call) -> dict[str, Any]:
    """Return what the frame around a page needs: what a browser has chosen, and which link is the current one."""
    cookies = call.request.cookies
    theme = cookies.get("dbtaskqueue_theme", "")
    return {
        "theme": theme if theme in THEMES else "system",
        "keys": cookies.get("dbtaskqueue_keys") != "off",
        "section": section_of(call.path),
        "may_sign_out": call.dashboard.way_in.has_login,
        "layout": "base.html",
        "said": said(call),
        "look": None,
        "etag": "",
    }


def section_of(path: str) -> str:
    """Return the path of the link in the navigation to which a page belongs."""
    first = "/" + path.split("/")[1]
    return {"/queue": "/queues", "/function": "/functions", "/schedule": "/schedules", "/worker": "/workers"}.get(
        first, first
    )


class Templates:
    """The templates. Every value is escaped, and a misspelled one is an error."""

    def __init__(self, static: Static) -> None:
        self._static = static
        self.environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters.update(FILTERS)

    def render(self, call: Call, template: str, **values: Any) -> str:
        """Return a template with these values, and those that all templates have."""
        common = {
            "call": call,
            "user": call.user if call.is_known else None,
            "may": call.may,
            "path": call.path,
            "query": call.query,
            "url": call.url,
            "static": lambda name: call.url(self._static.path(name)),
            "read_only": call.dashboard.read_only,
            "hidden": call.dashboard.hidden,
            **frame(call),
        }
        return self.environment.get_template(template).render({**common, **values})
