"""docs/operations.md as a person follows it: a real server, a real worker, real deployments."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml

from tests.conftest import REPO
from tests.small_site import Site
from vsa_core.store import Store
from vsa_core.verify import verify

_LIMIT_S = 180
# Commands that run until they are ended; a person gives each a terminal of its own.
_SERVICES = ("prefect server start", "prefect worker start")


def commands() -> list[str]:
    """Every shell command of the first section of docs/operations.md, in order."""
    text = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.split("\n## ")[1]
    assert section.startswith("From a server to the first scheduled run")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


class Terminal:
    """Runs commands in one folder, with one environment."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = {
            **clean,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}",
            "PWD": str(folder),
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        self.services: list[subprocess.Popen[bytes]] = []

    def type(self, line: str) -> str:
        """What a command prints; a service is left running."""
        line = line.replace("4200", str(self.port))
        if line.startswith(". "):  # this environment is active
            return ""
        if assigned := re.fullmatch(r"export (\w+)=(\S+)", line):
            self.environment[assigned[1]] = assigned[2]
            return ""
        if line.startswith(_SERVICES):
            log = (self.folder / f"{line.split()[1]}.log").open("wb")
            self.services.append(
                subprocess.Popen(
                    line.split(), cwd=self.folder, env=self.environment, stdout=log, stderr=log
                )
            )
            if "server" in line:
                self._wait_for_server()
            return ""
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            with suppress(URLError, OSError):
                if urlopen(f"http://127.0.0.1:{self.port}/api/health", timeout=5).status == 200:
                    return
            time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def post(self, path: str, body: object) -> object:
        """The answer of the server's API to a POST."""
        from urllib.request import Request

        request = Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def close(self) -> None:
        """End the services, the worker first."""
        for service in reversed(self.services):
            service.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                service.wait(20)
            service.kill()
            service.wait()


@pytest.fixture
def terminal(tmp_path: Path, channel_site: Site, web_config: Path) -> Iterator[Terminal]:
    """A checkout's files in a folder of their own, with one channel on loopback."""
    folder = tmp_path / "checkout"
    (folder / "configs").mkdir(parents=True)
    channels = {"channels": [{"name": "talks", "url": f"{channel_site.address}/feed.xml"}]}
    (folder / "configs" / "channels.yaml").write_text(yaml.safe_dump(channels))
    deployments = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in deployments["deployments"]:
        if "config" in deployment["parameters"]:  # no real models, and loopback is allowed
            deployment["parameters"]["config"] = str(web_config)
    (folder / "prefect.yaml").write_text(yaml.safe_dump(deployments))
    opened = Terminal(folder)
    try:
        yield opened
    finally:
        opened.close()


def test_from_a_server_to_the_first_labelled_night(terminal: Terminal, channel_site: Site) -> None:
    said = {line: terminal.type(line) for line in commands()}
    ran = said["prefect deployment run watch-channels/nightly --watch"]
    assert "Completed" in ran
    store = Store(terminal.folder / "store")
    labelled = sum(table.num_rows for table in store.scan("labels"))
    assert labelled > 0
    assert verify(store) == []
    assert f"Labelled  {labelled} of {labelled} segments" in said["vsa status"]
    assert "Channels, by the best attempt at each address" in said["vsa status"]
    assert "talks" in {row for t in store.scan("attempts") for row in t["channel"].to_pylist()}

    # What is on the server is what the document promises.
    deployments = terminal.post("deployments/filter", {})
    assert isinstance(deployments, list)
    by_name = {one["name"]: one for one in deployments}
    assert by_name.keys() == {"nightly", "on-demand", "adapt", "relabel", "score", "train"}
    [schedule] = by_name["nightly"]["schedules"]
    assert schedule["schedule"]["cron"] == "15 3 * * *"
    assert by_name["nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    for one in by_name.values():  # a usable form
        properties = one["parameter_openapi_schema"]["properties"]
        assert all(field.get("description") for field in properties.values()), one["name"]
    artifacts = terminal.post("artifacts/filter", {})
    assert isinstance(artifacts, list)
    assert {"vsa-run", "vsa-sentiments", "vsa-watch"} <= {one["key"] for one in artifacts}

    # The second night finds nothing new, and asks for no video.
    asked = len(channel_site.asked)
    again = terminal.type("prefect deployment run watch-channels/nightly --watch")
    assert "Completed" in again
    assert not [path for path in channel_site.asked[asked:] if path.endswith(".mp4")]
    assert sum(table.num_rows for table in Store(store.root).scan("labels")) == labelled

    # On demand: another flow over the same store.
    terminal.type("prefect deployment run relabel/relabel -p model=late-mean --watch")
    assert len(Store(store.root).parts("labels")) == 2


def test_the_automation_of_the_document_is_one(terminal: Terminal) -> None:
    from prefect.events.schemas.automations import AutomationCore

    text = (REPO / "docs" / "operations.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```yaml\n(name: vsa failed.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert AutomationCore.model_validate(yaml.safe_load(block)).actions


def test_the_checkout_has_what_is_deployed() -> None:
    assert shutil.which("prefect", path=str(Path(sys.executable).parent))
    deployments = yaml.safe_load((REPO / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in deployments["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        made = __import__(module, fromlist=[name])
        flow = getattr(made, name)
        known = set(flow.parameters.properties)
        assert set(deployment["parameters"]) <= known, deployment["name"]
        assert deployment.get("pull", deployments["pull"]), "pull is explicit"
