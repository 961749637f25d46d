"""What other libraries are told before they are imported: call nobody, leave loopback unproxied."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from urllib.parse import urlsplit

# Statistics, error reports and update checks that would be sent without being asked for. Whoever
# wants one sets the variable to something else.
_SILENT = {
    "DO_NOT_TRACK": "1",  # Prefect's client, and others that heed it
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DENO_NO_UPDATE_CHECK": "1",
}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Silence what calls home, and keep proxies from what is on this machine.

    Called before Prefect is imported, which reads most of it once; child processes inherit it.
    """
    for name, value in _SILENT.items():
        if not environment.get(name):
            environment[name] = value
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(hosts)


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    return host in _LOOPBACK or host.startswith("127.")


@contextmanager
def without_odd_proxies() -> Iterator[None]:
    """No proxy but HTTP ones in the environment: others break clients that would not use them."""
    odd = {
        name: value
        for name, value in os.environ.items()
        if name.lower() in _PROXIES
        and "://" in value
        and not value.lower().startswith(("http://", "https://"))
    }
    for name in odd:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(odd)
