"""One llama.cpp server and one gateway before it, and the official clients, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import ollama
import openai
import pytest

from tests.real.llama_server import LlamaServer
from tests.wire.client import KEY
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import configuration


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with LlamaServer(tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture(scope="session")
def gateway(server: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its only backend has no list of models, so it asks the server for them."""
    config = configuration({"name": "llama", "protocol": "llamacpp", "endpoints": [server.url]})
    gateway = Gateway(config, tmp_path_factory.mktemp("gateway"), ready_path="/health/ready")
    try:
        yield gateway
        gateway.stop()
    finally:
        gateway.kill()


@pytest.fixture
def address(gateway: Gateway) -> Iterator[str]:
    """Where the gateway is. After the test it has to be at rest."""
    yield f"http://127.0.0.1:{gateway.port}"
    wait_until(lambda: not _held(gateway), lambda: f"a gateway at rest still holds {_held(gateway)}")


# The unmodified SDKs, which are told to try once only: a lost call is a failed test.


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEY, base_url=f"{address}/v1", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def claude(address: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key=KEY, base_url=address, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def native(address: str) -> Iterator[ollama.Client]:
    """It never tries twice."""
    with ollama.Client(address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as client:
        yield client


def _held(gateway: Gateway) -> dict[str, float]:
    """What no gateway at rest may hold; idle connections it may, until the server or their age ends them."""
    metrics = gateway.metrics()
    held = {
        "calls": metrics.value("gateway_in_flight_requests"),
        "leases": metrics.value("gateway_upstream_connections", state="busy"),
        "body bytes": metrics.value("gateway_body_budget_bytes"),
    }
    return {name: value for name, value in held.items() if value}
