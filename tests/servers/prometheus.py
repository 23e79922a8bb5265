"""The tests' own Prometheus, which scrapes one address each second."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from servers.accounts import hand_over
from servers.ports import LOOPBACK
from servers.process import ServerProcess
from servers.requirements import missing

_CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: {rules}
scrape_configs:
  - job_name: dbtaskqueue
    static_configs: [{{targets: ["{target}"]}}]
"""


def program(name: str) -> Path:
    """Return the path of a program of Prometheus. Skip if it is missing."""
    found = shutil.which(name)
    return Path(found) if found else missing("prometheus", "apt-get install prometheus")


class Prometheus(ServerProcess):
    """A Prometheus that scrapes ``target``, and evaluates the rules in these files."""

    name = "prometheus"

    def __init__(self, target: str, rules: Sequence[Path] = ()) -> None:
        self.prometheus = program("prometheus")
        super().__init__()
        self.target = target
        self.rules = rules

    def command(self) -> Sequence[str | Path]:
        for path in self.rules:
            shutil.copy(path, self.directory)
        rules = json.dumps([str(self.directory / path.name) for path in self.rules])
        file = self.directory / "prometheus.yml"
        file.write_text(_CONFIGURATION.format(rules=rules, target=self.target))
        hand_over(self.directory)
        return [
            self.prometheus,
            f"--config.file={file}",
            f"--storage.tsdb.path={self.directory}/data",
            f"--web.listen-address={LOOPBACK}:{self.port}",
        ]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the API. Fail with Prometheus's own words if it refuses."""
        url = f"http://{LOOPBACK}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that an expression gives now."""
        found = self.ask("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]
