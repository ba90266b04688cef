"""The stand-in hub of a test session, and the libraries pointed at it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub.file_download
import huggingface_hub.utils._http
import pytest
from huggingface_hub import constants

from bench.models import lora
from bench.system import hub as bench_hub
from bench.system.hub import COMMITS, tell_soon_if_unreachable
from tests.hub.contents import CONTENTS
from tests.hub.server import Hub


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A server for each test process; the repositories' files are made once for all of them."""
    base = tmp_path_factory.getbasetemp()
    hub = Hub((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "hub", CONTENTS)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture
def hub(running_hub: Hub, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, with a cache of downloads that tests share."""
    point_to(running_hub, downloads, monkeypatch)
    yield running_hub
    mended(running_hub)


@pytest.fixture
def fresh_hub(running_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, with nothing downloaded yet."""
    point_to(running_hub, tmp_path / "downloads", monkeypatch)
    yield running_hub
    mended(running_hub)


def point_to(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HOME do: for this process, which has read them already, and for those it starts."""
    forget()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", home / "modules")
    offline(monkeypatch, on=False)
    Impatient.slept = 0
    for module in (huggingface_hub.utils._http, huggingface_hub.file_download, bench_hub):  # they wait and try again
        monkeypatch.setattr(module, "time", Impatient())
    tell_soon_if_unreachable()


class Impatient:
    """The module `time` that never waits, and counts the seconds."""

    slept = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        Impatient.slept += seconds


def offline(monkeypatch: pytest.MonkeyPatch, *, on: bool = True) -> None:
    """What HF_HUB_OFFLINE=1 does."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", on)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", on)


def forget() -> None:
    """As in a new process, which has seen nothing of the hub's models yet."""
    COMMITS.clear()
    bench_hub._HUB_ANSWERED.clear()
    bench_hub._NO_ANSWER.clear()
    lora._OF_HUB.clear()


def mended(hub: Hub) -> None:
    """Undo what a test did to the hub, and forget what it published."""
    hub.gated.clear()
    hub.cut.clear()
    hub.requests.clear()
    hub.pushed.clear()
    hub.refs.clear()
    forget()
    if hub.server is None:
        hub.start()
