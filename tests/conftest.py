"""What tests of whole runs share: a clean environment, a place to work in, and a sandbox beside the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from held import HeldSandbox
from hypothesis import HealthCheck, Phase, settings

from batchgen.sandbox import Ledger, Sandbox, Script, parse_fault

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell in the background lets it be ignored, and the commands that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

MODEL = "black-forest-labs/FLUX.1-schnell"
AnySandbox = TypeVar("AnySandbox", bound=Sandbox)
DEFAULTS: dict[str, Any] = {"model": MODEL, "width": 24, "height": 16}

# The same examples on every machine and no clock, so that a red test is a fault; `make soak` looks for new ones.
settings.register_profile(
    "test", max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "soak", max_examples=10_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# Whether a mutant lives needs no smallest example, and must not depend on luck.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None)
settings.load_profile("soak" if os.environ.get("BATCHGEN_SOAK") == "1" else "test")


@pytest.fixture(autouse=True)
def clean_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing that the developer's own shell says about keys, addresses, limits or proxies reaches a test."""
    ours = ["BATCHGEN_", "NEBULA_", "OPENAI_", "XDG_", "AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "STORAGE_EMULATOR_"]
    if request.node.get_closest_marker("no_cover"):
        ours.append("COVERAGE_")  # nor are the processes that it starts measured
    for name in os.environ:
        if name.startswith(tuple(ours)) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))


class Place:
    """A folder with manifests and what runs leave beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def jobs(self, *jobs: dict[str, Any] | str, name: str = "m.yaml", **beside: Any) -> Path:
        """Write a manifest of these jobs; a text is a job whose id and prompt it is."""
        rows = [{"id": job, "prompt": job} if isinstance(job, str) else job for job in jobs]
        # JSON is YAML.
        return self.write(name, json.dumps({"defaults": DEFAULTS, "jobs": rows} | beside, ensure_ascii=False))

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    @property
    def output(self) -> Path:
        """The default output folder of `m.yaml`."""
        return self.root / "outputs" / "m"

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / "log.jsonl").read_bytes().splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        found = json.loads((self.output / "summary.json").read_bytes())
        assert isinstance(found, dict)
        return found

    def files(self, folder: str = "images") -> set[str]:
        """The files below a folder of the output, as paths relative to it."""
        base = self.output / folder
        return {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class WatchedLedger(Ledger):
    """A ledger that says when the first request has come in, and calls `on_request` with the number of each."""

    def __init__(self, on_request: Callable[[int], None] = lambda number: None) -> None:
        super().__init__(100.0)
        self.begun = threading.Event()
        self.on_request = on_request

    @contextmanager
    def request(self) -> Iterator[None]:
        self.on_request(self.requests + 1)
        self.begun.set()
        with super().request():
            yield


class Beside:
    """Runs sandboxes on a thread of their own, for tests that block or start other processes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: list[Sandbox] = []

    def __call__(self, *faults: str, latency_s: float = 0.0, **settings: Any) -> Sandbox:
        """A running sandbox with these faults; its ledger may be read from here."""
        script = Script(latency_s=(latency_s, latency_s), faults=tuple(map(parse_fault, faults)), **settings)
        return self._open(Sandbox(script))

    def held(self) -> HeldSandbox:
        """A running sandbox whose answers wait until it is told to let go."""
        return self._open(HeldSandbox(Script(latency_s=(0.0, 0.0))))

    def _open(self, sandbox: AnySandbox) -> AnySandbox:
        sandbox.ledger = WatchedLedger()
        asyncio.run_coroutine_threadsafe(sandbox.__aenter__(), self._loop).result(30)
        self._running.append(sandbox)
        return sandbox

    def close(self) -> None:
        for sandbox in self._running:
            asyncio.run_coroutine_threadsafe(sandbox.__aexit__(None, None, None), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture
def beside() -> Iterator[Beside]:
    servers = Beside()
    yield servers
    servers.close()
