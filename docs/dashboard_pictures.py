"""Take pictures of the dashboard on the demo's database: ``python docs/dashboard_pictures.py [DIRECTORY]``.

Without DIRECTORY, it writes the three pictures of README to docs/_static/dashboard. With DIRECTORY, it writes every
page there, at 1280 and 360 px, light and dark, to be looked at after a change of the style.

It needs Chromium, and ``pip install playwright pillow``.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

README = Path(__file__).parent / "_static" / "dashboard"
SIZES = {"1280": (1280, 800), "360": (360, 740)}
PATIENCE = 180.0
"""Seconds until the demo's tasks must have come as far as the pictures show them."""
MOST_BYTES = 120_000
PAGES = [
    *("/", "/tasks", "/queues", "/functions", "/schedules", "/quotas", "/overdue", "/workers", "/enqueue"),
    *("/operations", "/audit", "/doctor", "/settings", "/queue?name=media", "/function?name=video.encode"),
    *("/schedule?name=digest&queue=mail", "/worker/1", "/tasks?state=failed&state=abandoned"),
]


def main(directory: Path | None) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with demo() as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        if directory is None:
            pictures_of_readme(browser, link)
        else:
            all_pages(browser, link, directory)
        browser.close()


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """Run the demo's tasks, workers and dashboard; yields the link to the dashboard."""
    command = [sys.executable, "-m", "dbtaskqueue", "demo", "--dashboard", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield next(found[1] for line in process.stdout if (found := re.match(r"dashboard: (\S+)", line)))
        finally:
            process.terminate()


def tab(browser: Browser, link: str, size: str, scheme: str) -> Page:
    """Open a signed-in tab."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        locale="en-GB",
        timezone_id="UTC",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(link)
    return page


def wait_for_the_tasks(page: Page) -> str:
    """Wait until a film is encoded and a task has failed; return the path of the film's task."""
    film = page.get_by_role("table", name="Running tasks").get_by_role("row").filter(has_text="video.encode")
    film = film.filter(has_text=re.compile(r"scene ([3-9]\d|1[01]\d) of 120")).filter(has_text="MiB")
    deadline = time.monotonic() + PATIENCE
    while not (film.count() and page.get_by_role("table", name="Latest failures").count()):
        if time.monotonic() > deadline:
            raise TimeoutError("no film is encoded, or no task has failed")
        page.wait_for_timeout(500)
    return str(film.first.get_by_role("link").first.get_attribute("href"))


def all_pages(browser: Browser, link: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    address = link.partition("/?")[0]
    film = wait_for_the_tasks(tab(browser, link, "1280", "light"))
    for size in SIZES:
        for scheme in ("light", "dark"):
            page = tab(browser, link, size, scheme)
            for path in [*PAGES, film, f"{film}/cancel"]:
                page.goto(address + path)
                page.wait_for_timeout(300)
                name = re.sub(r"\W+", "-", path).strip("-") or "overview"
                page.screenshot(path=directory / f"{name}-{size}-{scheme}.png", full_page=True)
            page.context.close()


def pictures_of_readme(browser: Browser, link: str) -> None:
    README.mkdir(parents=True, exist_ok=True)
    address = link.partition("/?")[0]
    page = tab(browser, link, "1280", "light")
    film = wait_for_the_tasks(page)
    for name, path in (("overview", "/"), ("task", film), ("tasks", "/tasks")):
        page.goto(address + path)
        page.wait_for_timeout(1500)
        (README / f"{name}.png").write_bytes(small(page.screenshot(full_page=False)))


def small(png: bytes) -> bytes:
    """Return a picture with a palette of as many colours as fit in MOST_BYTES."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if len(out.getvalue()) <= MOST_BYTES:
            return out.getvalue()
    raise ValueError(f"the picture has more than {MOST_BYTES} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
