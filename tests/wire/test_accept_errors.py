"""accept() that fails: the gateway goes on accepting, whatever the kernel says (RELIABILITY, fault 52)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes accept4 fail, is missing")


@contextmanager
def failing(gateway: Gateway, inject: str) -> Iterator[None]:
    """Inside, the worker's accept4 fails as *inject* says."""
    said = gateway.folder / "strace"
    command = ["strace", "-f", "-p", str(gateway.pid), "-e", "trace=accept4", "-e", f"inject=accept4:{inject}"]
    with said.open("wb") as err:
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)
    try:
        wait_until(lambda: "attached" in said.read_text() or tracer.poll() is not None, "strace is attached")
        if tracer.poll() is not None:
            pytest.skip(f"strace may not attach: {said.read_text().strip()}")
        yield
        assert "(INJECTED)" in said.read_text(), "no accept4 failed"
    finally:
        tracer.terminate()
        tracer.wait()


@pytest.mark.parametrize("error", ["ENOBUFS", "ENOMEM", "ECONNABORTED", "EPROTO", "EPERM"])
def test_an_accept_that_fails_is_not_the_last(stage: Stage, error: str) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream())))
    with failing(gateway, f"error={error}:when=2..4"):
        for _ in range(5):
            assert gateway.ask("GET", "/health/live", timeout=3.0).status == 200
    assert gateway.ask("GET", "/health/live").status == 200


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE"])
def test_without_a_descriptor_those_who_knock_wait_and_are_served(stage: Stage, error: str) -> None:
    """The host's last descriptor may go while the worker's own limit is far."""
    gateway = stage.gateway(configuration(backend(stage.upstream())))
    with failing(gateway, f"error={error}:when=2..4"):
        for _ in range(5):
            assert gateway.ask("GET", "/health/live", timeout=3.0).status == 200
    assert gateway.gauge("gateway_accept_pauses_total") == 3
    said = lambda: [line for line in gateway.log_lines() if line["msg"].startswith("accepting")]  # noqa: E731
    wait_until(lambda: len(said()) == 2, "both are logged, once")
    assert [line["msg"] for line in said()] == ["accepting pauses", "accepting goes on"]
    assert os.strerror(getattr(errno, error)) in said()[0]["reason"]
