"""Fixtures of the wire tests.

A test takes `stage` to start what it needs with a configuration of its own, or `upstream`, `gateway` and
`connect`, which share one gateway per module: that of the module's `config` fixture. Either way every test
ends with nothing held: no call, lease, body byte or file descriptor, and no word of an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.wire.client import Client
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Upstream

#: The modules that take longest, longest first, most of them for waiting: whatever is begun last is waited for alone.
LONGEST = (
    "test_keys",
    "test_dockerfile",
    "test_translation_failures",
    "test_sdks",
    "test_hung_workers",
    "test_upgrade_code",
    "test_upgrade",
    "test_translation_leaving",
    "test_honest_ends",
    "test_health_checks",
    "test_translation",
    "test_fallback",
    "test_load_hints",
    "test_tls_ends",
    "test_breakers",
    "test_translation_fallback",
    "test_backpressure",
    "test_reload",
    "test_upgrade_config",
    "test_heartbeats",
    "test_workers",
    "test_faults",
    "test_stalled_clients",
    "test_last_answers",
    "test_hostile_flood",
    "test_counters_host",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules go first; tox has pytest-xdist keep to that (--no-loadscope-reorder)."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Everything of its own."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    failed_before = request.session.testsfailed
    yield stage
    stage.close(check=request.session.testsfailed == failed_before)


@pytest.fixture(scope="module")
def module_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("module")) as stage:
        yield stage


@pytest.fixture(scope="module")
def module_upstream(module_stage: Stage) -> Upstream:
    return module_stage.upstream()


@pytest.fixture(scope="module")
def config(module_upstream: Upstream) -> Configuration:
    """What the module's gateway is started from; a module may have its own."""
    return configuration(backend(module_upstream))


@pytest.fixture(scope="module")
def module_gateway(module_stage: Stage, config: Configuration) -> Gateway:
    return module_stage.gateway(config)


@pytest.fixture
def gateway(module_stage: Stage, module_gateway: Gateway) -> Iterator[Gateway]:
    yield module_gateway
    module_stage.settle()


@pytest.fixture
def upstream(module_upstream: Upstream, gateway: Gateway) -> Upstream:
    return module_upstream


@pytest.fixture
def connect(module_stage: Stage, gateway: Gateway) -> Callable[..., Client]:
    """Call it for a new connection to the gateway."""

    def connect(**more: int) -> Client:
        return module_stage.connect(gateway, **more)

    return connect
