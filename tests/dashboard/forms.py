"""Forms of pages, as a browser without JavaScript sends them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import httpx
from dashboard.clients import HOST


class Form:
    """A form of a page: its method, its action, and the fields that it sends unless they are changed."""

    def __init__(self, attributes: dict[str, str | None]) -> None:
        self.method = attributes.get("method") or "get"
        self.action = attributes.get("action") or ""
        self.fields: dict[str, list[str]] = {}
        self.buttons: list[str] = []
        self.values: dict[str, tuple[str, str]] = {}
        """Name and value that a button sends, by its text."""


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.ids: dict[str, Form] = {}
        self.texts: dict[str, list[str]] = {"status": [], "alert": []}
        self._form: Form | None = None
        self._button: dict[str, str | None] | None = None
        self._area: str | None = None
        self._role: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        form = self.ids.get(given["form"] or "") if "form" in given else self._form
        if tag == "form":
            self._form = Form(given)
            self.forms.append(self._form)
            self.ids[given.get("id") or ""] = self._form
        elif tag == "input" and form is not None and given.get("name"):
            if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                form.fields.setdefault(str(given["name"]), []).append(given.get("value") or "")
        elif tag == "textarea" and form is not None:
            self._area = given["name"]
            form.fields[str(self._area)] = [""]
        elif tag == "button":
            self._button = given
        if given.get("role") in self.texts:
            self._role = given["role"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "textarea":
            self._area = None
        elif tag == "button":
            self._button = None
        elif tag == "p":
            self._role = None

    def handle_data(self, data: str) -> None:
        if self._area is not None and self._form is not None:
            self._form.fields[self._area] = [self._form.fields[self._area][0] + data.removeprefix("\n")]
        elif self._button is not None and self._form is not None and data.strip():
            text = self._button.get("aria-label") or data.strip()
            self._form.buttons.append(text)
            if self._button.get("name"):
                self._form.values[text] = (str(self._button["name"]), self._button.get("value") or "")
        if self._role is not None and data.strip():
            self.texts[self._role].append(data.strip())


class Page:
    """A page, its forms, and what it says became of an action."""

    def __init__(self, client: httpx.Client, answer: httpx.Response) -> None:
        self._client = client
        self.answer = answer
        self.status_code = answer.status_code
        self.text = answer.text
        parser = _Parser()
        parser.feed(answer.text)
        self.forms = parser.forms
        self.status = " ".join(parser.texts["status"])
        self.alert = " ".join(parser.texts["alert"])

    def form(self, button: str) -> Form:
        """Return the form that has a button."""
        found = [form for form in self.forms if button in form.buttons]
        assert found, f"no button {button!r} on the page; there are {[form.buttons for form in self.forms]}"
        return found[0]

    def press(self, button: str, **changed: Any) -> Page:
        """Press a button, and go where it leads. ``changed``: fields with other values."""
        form = self.form(button)
        data = {**form.fields, **{name.replace("__", "."): value for name, value in changed.items()}}
        if button in form.values:
            name, value = form.values[button]
            data[name] = [value]
        if form.method == "get":
            return go(self._client, form.action, data)
        answer = self._client.post(form.action, data=data, headers={"origin": HOST})
        if answer.status_code == 303:
            return go(self._client, answer.headers["location"])
        return Page(self._client, answer)


def go(client: httpx.Client, path: str, query: dict[str, Any] | None = None) -> Page:
    """Return a page."""
    return Page(client, client.get(path, params=query or None))
