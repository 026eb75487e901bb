"""What tests of an upgrade share: the signal and what the log says of it, callers without a pause, lasting streams.

Owns nothing that lives longer than a test. It refuses expectations beyond "nothing was lost" (the tests).
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.wire.accepted import Gate
from tests.wire.client import Client, Incomplete
from tests.wire.process import Configuration, Gateway, to_toml, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_workers import held_stream

CHAT = "/v1/chat/completions"
UPGRADED, REFUSED = "upgraded", "the upgrade is refused, the running version stays"
VERDICTS = (UPGRADED, REFUSED)
#: What a worker says before it closes its listener.
REPLACED = "replaced"


def lines(gateway: Gateway, *messages: str) -> list[dict[str, Any]]:
    return [line for line in gateway.log_lines() if line["msg"] in messages]


def upgrade(gateway: Gateway, config: Configuration | None = None) -> dict[str, Any]:
    """Send SIGUSR2, with another *config* where one is given, and return what the log says of it.

    Where it is done, those that were replaced know it too: they take no connection any more.
    """
    if config is not None:
        (gateway.folder / "gateway.toml").write_text(to_toml(config))
    seen, left = len(lines(gateway, *VERDICTS)), len(lines(gateway, REPLACED))
    serving = lines(gateway, "listening", UPGRADED)[-1]["workers"]
    gateway.process.send_signal(signal.SIGUSR2)
    enough = lambda: len(lines(gateway, *VERDICTS)) > seen  # noqa: E731
    wait_until(enough, lambda: f"a verdict\n{gateway.stdout[-2000:]}\n{gateway.stderr}", timeout=60.0)
    verdict = lines(gateway, *VERDICTS)[seen]
    if verdict["msg"] == UPGRADED:
        told = lambda: len(lines(gateway, REPLACED)) >= left + serving  # noqa: E731
        wait_until(told, lambda: f"{serving} workers that are replaced\n{gateway.stdout[-2000:]}", timeout=10.0)
    return verdict


def wait_workers(gateway: Gateway, count: int) -> None:
    """Return once *count* workers live: those that were replaced have gone."""
    wait_until(lambda: len(gateway.workers) == count, f"{count} workers", timeout=10.0)


def health(gateway: Gateway) -> Any:
    return gateway.ask("GET", "/health").json()


def generations(gateway: Gateway) -> set[float]:
    """Those that workers take new connections under."""
    return {one.value for one in gateway.metrics().families["gateway_config_generation"].samples}


@contextmanager
def callers(gateway: Gateway, count: int = 8, *, keep: bool = True) -> Iterator[Counter[str]]:
    """*count* clients that call without a pause, on connections that they *keep* or on a new one for each call.

    What they see is counted.
    """
    headers = () if keep else (("Connection", "close"),)
    stopped = threading.Event()
    seen = Counter[str]()

    def call() -> None:
        client: Client | None = None
        while not stopped.is_set():
            try:
                client = client or Client(gateway.port, gateway.host, timeout=10.0, **gateway.manner)
                client.chat(headers=headers)
                response = client.response()
            except (OSError, Incomplete) as error:
                seen[repr(error)] += 1
                if client is not None:
                    client.close()
                client = None
                continue
            seen[str(response.status)] += 1
            if response.header("connection") == "close":
                client.close()
                client = None
        if client is not None:
            client.close()

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def busy(stage: Stage, gate: Gate, **sections: Any) -> Configuration:
    """The model `m` answers at once, the model `s` with a stream that ends when *gate* opens."""
    quick, slow = stage.upstream(), stage.upstream(held_stream(gate))
    return configuration(backend(quick), backend(slow, name="beta", models=["s"]), **sections)


def assert_nothing_was_lost(seen: Counter[str], calls: int = 20) -> None:
    assert set(seen) == {"200"} and seen["200"] > calls, seen
