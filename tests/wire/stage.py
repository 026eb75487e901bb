"""What a wire test plays on: upstreams, gateways and clients, and the check that all of it comes to rest.

Owns their lifetimes. It refuses fixtures (`conftest`) and expectations (the tests). Made by `conftest` for a
test or a module, and by `test_keys` for each check.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.faults.backlog import FullBacklog
from tests.wire import answers
from tests.wire.client import KEY, Client
from tests.wire.process import Configuration, Gateway, free_port
from tests.wire.upstream import Script, Upstream


def merge(base: Configuration, more: Mapping[str, Any]) -> Configuration:
    """*base* with *more* laid over it, table by table."""
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def backend(*upstreams: Upstream | FullBacklog | str, name: str = "alpha", **more: Any) -> dict[str, Any]:
    """A backend over *upstreams*, serving the model `m` unless *more* says otherwise."""
    urls = [one if isinstance(one, str) else one.url for one in upstreams]
    return {"name": name, "endpoints": urls, "models": ["m"], **more}


def configuration(*backends: Mapping[str, Any], **sections: Any) -> Configuration:
    """A configuration with one key, a free port and no `pre_stop`, over *backends*."""
    base: Configuration = {
        "server": {"port": free_port(), "pre_stop": "0s"},
        "auth": {"keys": [{"name": "tester", "key": KEY}]},
        # Upstreams fail on purpose here, one after the other, and count what comes: a test that is about circuits, or
        # about health checks or load hints, says so.
        "defaults": {"breaker": {"max_failures": 0}, "health": {"interval": "0s"}, "load": {"interval": "0s"}},
        "backends": [dict(one) for one in backends],
    }
    return merge(base, sections)


class Stage:
    """Use as `with Stage(folder) as stage`. `settle` after each test, `close` (by the with) at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._upstreams: list[Upstream] = []
        self._backlogs: list[FullBacklog] = []
        self._gateways: list[Gateway] = []
        self._clients: list[Client] = []

    def upstream(
        self,
        answer: Script | list[Script] = answers.model_server,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        receive_buffer: int = 0,
    ) -> Upstream:
        upstream = Upstream(answer, tls=tls, host=host, port=port, receive_buffer=receive_buffer)
        self._upstreams.append(upstream)
        return upstream

    def full_backlog(self, host: str = "127.0.0.1", port: int = 0) -> FullBacklog:
        """A peer to which a connect neither succeeds nor fails."""
        backlog = FullBacklog(host, port)
        self._backlogs.append(backlog)
        return backlog

    def gateway(self, config: Configuration, **more: Any) -> Gateway:
        folder = self.folder / f"gateway-{len(self._gateways)}"
        folder.mkdir(parents=True)
        gateway = Gateway(config, folder, **more)
        self._gateways.append(gateway)
        return gateway

    def connect(self, target: Gateway | Upstream, **more: Any) -> Client:
        manner = target.manner if isinstance(target, Gateway) else {}
        client = Client(target.port, target.host, **{**manner, **more})
        self._clients.append(client)
        return client

    def settle(self) -> None:
        """Every client leaves, every upstream is as new; then nothing may be held, and nothing was wrong."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        violations: list[str] = []
        for upstream in self._upstreams:
            upstream.reset()
            violations += upstream.ledger.violations
            upstream.ledger.violations = []
        for gateway in self._gateways:
            if gateway.process.returncode is None:
                gateway.check_idle()
        assert not violations, violations

    def close(self, *, check: bool = True) -> None:
        """End everything; with *check*, all that runs has to be at rest and to stop at once when told."""
        try:
            if check:
                self.settle()
                for gateway in self._gateways:
                    if gateway.process.returncode is None:
                        assert not gateway.has_metrics or gateway.metrics().families
                        gateway.stop()
        finally:
            for gateway in self._gateways:
                gateway.kill()
            for client in self._clients:
                client.close()
            for upstream in self._upstreams:
                upstream.close()
            for backlog in self._backlogs:
                backlog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(check=kind is None)
