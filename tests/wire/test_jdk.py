"""A stock JDK HttpClient, which offers h2c with every request, and its recorded bytes, over real sockets."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wire.client import Client
from tests.wire.hostile import judge_forwarded
from tests.wire.process import Gateway
from tests.wire.upstream import Upstream

DATA = Path(__file__).parents[1] / "data" / "jdk"
BODY = b'{"model":"m","user":"%b"}' % (b"x" * 20_000)
Connect = Callable[..., Client]


@pytest.mark.parametrize("pieces", [1, 2, 7, 20_337])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_its_recorded_bytes_arrive_whole(connect: Connect, upstream: Upstream, framing: str, pieces: int) -> None:
    data = (DATA / f"post_{framing}.http").read_bytes()
    client = connect()
    for _ in range(2):
        client.split(data, *range(0, len(data), len(data) // pieces + 1), pause=0.00001)
        assert client.response().status == 200
    client.send(data * 3)
    for _ in range(3):
        assert client.response().status == 200
    assert len(upstream.requests) == 5
    for request in upstream.requests:
        judge_forwarded(request, BODY)


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
@pytest.mark.timeout(120)
def test_it_posts_20_kb_intact(gateway: Gateway, upstream: Upstream) -> None:
    framings = ["length", "chunked", "length", "length", "chunked"]
    url = f"http://{gateway.host}:{gateway.port}/v1/chat/completions"
    command = ["java", "-XX:TieredStopAtLevel=1", str(DATA / "Post.java"), url, "20000", *framings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if "error: compilation failed" in done.stderr or "jdk.compiler" in done.stderr:
        pytest.skip("a Java without its compiler")
    assert done.stdout.splitlines() == ["200 HTTP_1_1"] * len(framings), done.stderr
    assert len(upstream.requests) == len(framings)
    for request in upstream.requests:
        judge_forwarded(request, BODY)
