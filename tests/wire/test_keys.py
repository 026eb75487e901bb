"""Every key of the configuration has a check that would notice its being ignored.

A check starts a gateway with its key set and looks at it from outside. It has to pass; and started on the same
configuration without the key, it has to fail, which proves that it looks at the right thing.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.schema import Config
from tests.wire import keys_auth, keys_backends, keys_listener, keys_overload, keys_routes, keys_server
from tests.wire.keys_stage import BACKENDS, DEFAULTS, Check, KeyStage, without
from tests.wire.process import DidNotStart

CHECKS: dict[str, Check] = {
    **keys_server.CHECKS,
    **keys_listener.CHECKS,
    **keys_auth.CHECKS,
    **keys_backends.CHECKS,
    **keys_overload.CHECKS,
    **keys_routes.CHECKS,
}

#: Without these a configuration says nothing sound, and the gateway refuses to start: that is how it notices.
NEEDED = {
    "auth.keys.name",
    "auth.keys.key",
    "auth.keys.key_env",
    "auth.keys.key_file",
    "auth.keys.sha256",
    "server.tls.cert",
    "server.tls.key",
    f"{BACKENDS}.name",
    f"{BACKENDS}.endpoints",
    f"{BACKENDS}.endpoints.url",
    "routes.model",
    "routes.targets.backend",
    *(
        f"{place}.{path}"
        for place in (BACKENDS, DEFAULTS)
        for path in (
            "auth.type",
            "auth.header_name",
            "auth.username",
            "auth.token",
            "auth.token_env",
            "auth.token_file",
            "tls.cert",
            "tls.key",
        )
    ),
}


def paths(type_: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all keys of a schema's struct, through its tables and arrays of tables."""
    for name, hint in typing.get_type_hints(type_).items():
        path = f"{prefix}{name}"
        inner = list(structs(hint))
        for struct in inner:
            yield from paths(struct, f"{path}.")
        if not inner or has_plain(hint):
            yield path


def structs(hint: Any) -> Iterator[Any]:
    """The structs that a value of the type *hint* may be, or hold."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for argument in typing.get_args(hint):
        yield from structs(argument)


def has_plain(hint: Any) -> bool:
    """Whether a value of *hint*, or an element of it, may be something else than a struct."""
    if typing.get_origin(hint) is tuple:
        return has_plain(typing.get_args(hint)[0])
    if isinstance(hint, types.UnionType):
        return any(map(has_plain, typing.get_args(hint)))
    return not any(structs(hint))


def run(path: str, removed: bool, folder: Path) -> None:
    """Play the check of *path* on a stage of its own."""
    place = path.partition(".")[0]
    with KeyStage(folder, path if removed else "", place) as stage:
        CHECKS[path](stage)


Outcomes = dict[tuple[str, bool], "Future[None]"]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """The checks, several at a time: each waits for its processes most of its time."""
    wanted = [
        (str(item.callspec.params["path"]), item.function is test_the_check_would_notice)
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(4) as pool:
        started: Outcomes = {}
        for path, removed in wanted:
            folder = tmp_path_factory.mktemp("key")
            started[path, removed] = pool.submit(run, path, removed, folder)
        yield started
        for future in started.values():
            future.cancel()


@pytest.fixture
def leaves_nothing_behind() -> None:
    """Several checks run at once, so one test's threads and files are not told from another's; stages look."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", CHECKS)
def test_the_key_has_its_effect(path: str, outcomes: Outcomes) -> None:
    outcomes[path, False].result()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", CHECKS)
def test_the_check_would_notice(path: str, outcomes: Outcomes) -> None:
    failure = outcomes[path, True].exception()
    expected = (AssertionError, DidNotStart) if path in NEEDED else (AssertionError, pytest.fail.Exception)
    assert isinstance(failure, expected), f"without {path} the check ended with {failure!r}"


def test_every_key_has_a_check() -> None:
    assert sorted(CHECKS) == sorted(paths(Config))


def test_a_key_is_removed_wherever_it_stands() -> None:
    config = {"a": [{"b": 1, "c": {"d": 1, "e": 2}}, "text"], "f": 3}
    assert without(config, ["a", "c", "d"]) == {"a": [{"b": 1, "c": {"e": 2}}, "text"], "f": 3}
    assert without(config, ["f"]) == {"a": config["a"]}
    assert without(config, ["a", "x"]) == config
