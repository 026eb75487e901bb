"""llama.cpp's server tells the gateway what others have it do."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.real.llama_server import SLOT_CONTEXT, SLOTS, LlamaServer
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import configuration

#: More than it has slots, so that some wait.
OTHERS = SLOTS + 2


def generation(server: LlamaServer) -> socket.socket:
    """Somebody else's stream, which takes some seconds; it ends with its connection."""
    at = urlsplit(server.url)
    assert at.hostname is not None and at.port is not None
    body = {"prompt": "Hello", "max_tokens": SLOT_CONTEXT - 100, "stream": True, "ignore_eos": True}
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    sock = socket.create_connection((at.hostname, at.port), 10)
    sock.sendall(head.encode() + b"\r\n\r\n" + data)
    return sock


def told(gateway: Gateway) -> list[float]:
    return [sample.value for sample in gateway.metrics().families["gateway_backend_load"].samples]


def test_requests_of_others_that_run_and_that_wait_are_told(server: LlamaServer, tmp_path: Path) -> None:
    fields = {"name": "llama", "protocol": "llamacpp", "endpoints": [server.url], "models": ["tiny"]}
    gateway = Gateway(configuration({**fields, "load": {"interval": "100ms"}}), tmp_path)
    try:
        wait_until(lambda: told(gateway) == [0], "it tells")
        others = [generation(server) for _ in range(OTHERS)]
        try:
            wait_until(lambda: told(gateway) == [OTHERS], "all are told", 10.0)
        finally:
            for sock in others:
                sock.close()
        wait_until(lambda: told(gateway) == [0], "they have left", 10.0)
        gateway.stop()
    finally:
        gateway.kill()
