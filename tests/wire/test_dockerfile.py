"""The Dockerfile's steps, carried out in scratch folders, and the container's command answering from outside.

A container engine may be missing, so `scratch_image` stands in for one.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.process import ROOT, free_port, wait_until
from tests.wire.scratch_image import Build, Image, read_dockerfile

KEY = "a-key-for-the-container"
#: This machine, but not the address that programs mean by "here": reached only where all addresses are listened on.
OUTSIDE = "127.0.0.2"

pytestmark = pytest.mark.timeout(300)  # two installations


def quick_compiler(folder: Path) -> str:
    """A C compiler that optimises nothing: looked at here is whether the image has it all, not how fast it is."""
    script = folder / "cc"
    script.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # Not pytest's own folder: that is closed to other users, and the container's command runs as one.
    folder = Path(tempfile.mkdtemp(prefix="image-"))
    folder.chmod(0o755)
    try:
        yield Build(ROOT / "Dockerfile", folder, CC=quick_compiler(folder)).image
    finally:
        shutil.rmtree(folder)


class Container:
    """The image's command, running."""

    def __init__(self, image: Image, folder: Path, **environment: str) -> None:
        self.image = image
        self.port = free_port()
        self._output = folder / "output"
        self.process = image.start(
            image.command,
            output=self._output,
            GEN_GATEWAY__SERVER__PORT=str(self.port),
            GEN_GATEWAY__SERVER__PRE_STOP="0s",
            **environment,
        )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(OUTSIDE, self.port, timeout=5)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def is_live(self) -> bool:
        assert self.process.poll() is None, self.output
        try:
            return self.ask("GET", "/health/live")[0] == 200
        except OSError:
            return False


@pytest.fixture
def container(image: Image, tmp_path: Path) -> Iterator[Container]:
    container = Container(image, tmp_path, GEN_GATEWAY_API_KEYS=KEY)
    try:
        wait_until(container.is_live, lambda: f"the container is not live:\n{container.output}", 15)
        yield container
    finally:
        if container.process.poll() is None:
            container.process.kill()
        container.process.wait()


def check_health(image: Image, port: int, folder: Path) -> int:
    """The exit code of the image's health check."""
    environment = {"GEN_GATEWAY__SERVER__PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    process = image.start(image.health, output=folder / "health", **environment)
    return process.wait(15)


def test_the_container_answers_from_outside_and_drains_when_it_is_stopped(container: Container) -> None:
    status, body = container.ask(
        "POST",
        "/v1/chat/completions",
        b'{"model": "mock", "messages": [{"role": "user", "content": "Hello"}]}',
    )
    assert status == 200, body
    assert "Hello" in json.loads(body)["choices"][0]["message"]["content"]
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(10) == 0, container.output


def test_the_container_is_not_root_and_cannot_change_the_image(container: Container) -> None:
    lines = Path(f"/proc/{container.process.pid}/status").read_text().splitlines()
    users = next(line.split()[1:] for line in lines if line.startswith("Uid:"))
    expected = container.image.user.partition(":")[0] if os.geteuid() == 0 else str(os.geteuid())
    assert set(users) == {expected} != {"0"}
    assert container.image.user.replace(":", "").isdigit()


def test_the_health_check_passes_while_the_container_lives_and_only_then(container: Container, tmp_path: Path) -> None:
    assert check_health(container.image, container.port, tmp_path) == 0
    assert check_health(container.image, free_port(), tmp_path) == 1


def test_a_container_without_keys_refuses_to_start_and_says_why(image: Image, tmp_path: Path) -> None:
    container = Container(image, tmp_path)
    assert container.process.wait(15) == 2, container.output
    assert "allow_dev_key" in container.output.lower()


def test_the_image_holds_the_installed_packages_and_no_sources(image: Image, tmp_path: Path) -> None:
    script = (
        "import gateway, pathlib, protocols; "
        "print([str(pathlib.Path(p.__path__[0]) / 'py.typed') for p in (gateway, protocols)])"
    )
    process = image.start(["python", "-c", script], output=tmp_path / "output")
    assert process.wait(15) == 0
    for marker in json.loads((tmp_path / "output").read_text().replace("'", '"')):
        assert marker.startswith(str(image.root))
        assert Path(marker).exists()
    assert sorted(os.listdir(image.root)) == ["etc", "usr"]
    assert image.ports == [8080]


def test_only_known_files_reach_the_build() -> None:
    """What COPY takes must be let through by .dockerignore, which lets nothing through by default."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    for name, rest in read_dockerfile(ROOT / "Dockerfile"):
        if name == "COPY" and not rest.startswith("--from="):
            assert set(rest.split()[:-1]) <= allowed


def test_the_scratch_image_refuses_an_instruction_that_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("# words\nADD \\\n  x y\n")
    assert read_dockerfile(tmp_path / "Dockerfile") == [("ADD", "x y")]
    with pytest.raises(AttributeError):
        Build(tmp_path / "Dockerfile", tmp_path)
