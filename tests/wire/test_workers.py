"""Several workers act as one: deaths, sums over all of them, balance, and the one port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, Incomplete, chat_request
from tests.wire.process import ROOT, Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange

CHAT = "/v1/chat/completions"
GONE = (OSError, Incomplete, AssertionError)


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def owner(gateway: Gateway, client: Client) -> int:
    """The worker that holds *client*'s connection."""
    command = ["ss", "-tnpH", f"dport = :{client.address[1]}"]

    def found() -> int:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return next((pid for pid in gateway.workers if f"pid={pid}," in listed), 0)

    return int(wait_until(found, "the connection is accepted"))


def served_by_another(gateway: Gateway, known: set[int]) -> bool:
    """Whether a worker that is not *known* answers."""
    client = Client(gateway.port, timeout=2.0)
    try:
        client.request("GET", "/health/live")
        answered = client.response().status == 200
        return answered and owner(gateway, client) not in known
    finally:
        client.close()


def ended_well(client: Client) -> bool:
    try:
        return client.finish().complete
    except GONE:
        return False


def streamed(gateway: Gateway) -> float:
    return gateway.gauge("gateway_requests_total", path=CHAT, status="200")


def streams(stage: Stage, gateway: Gateway, count: int, **more: str) -> list[Client]:
    """*count* streams whose first event has come."""
    clients = [stage.connect(gateway) for _ in range(count)]
    for client in clients:
        client.chat(stream=True, **more)
        client.read_head()
        client.read_events(1)
    return clients


def held_stream(gate: Gate) -> answers.Script:
    def script(x: Exchange) -> None:
        x.send(answers.head(200, answers.SSE_TYPE, ("transfer-encoding", "chunked")))
        x.send(answers.chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'))
        x.stall(gate)
        x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)

    return script


def test_a_killed_worker_takes_its_own_streams_only_and_is_replaced(stage: Stage) -> None:
    gate = Gate()
    upstream = stage.upstream(held_stream(gate))
    gateway = stage.gateway(configuration(backend(upstream), server={"workers": 2}))
    open_streams = streams(stage, gateway, 24)
    held = {client: owner(gateway, client) for client in open_streams}
    victim = held[open_streams[0]]
    assert len(set(held.values())) == 2, "the kernel gave every connection to one worker"
    wait_until(lambda: gateway.gauge("gateway_in_flight_requests") == 24, "24 streams in flight")

    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: served_by_another(gateway, set(held.values())), "a new worker serves", timeout=2.0)
    assert time.monotonic() - killed < 2.0 and len(gateway.workers) == 2 and victim not in gateway.workers
    survivors = sum(pid != victim for pid in held.values())
    wait_until(lambda: gateway.gauge("gateway_in_flight_requests") == survivors, "the dead worker's calls are gone")
    gate.open()
    for client, pid in held.items():
        assert ended_well(client) == (pid != victim)
    wait_until(lambda: streamed(gateway) == survivors, "those that ended well are counted, and no others")
    for name in ("gateway_in_flight_requests", "gateway_body_budget_bytes"):
        gateway.wait_gauge(0, name)
    gateway.wait_gauge(0, "gateway_upstream_connections", state="busy")
    # Both listeners answer: a connection goes to either.
    for _ in range(40):
        assert gateway.ask("GET", "/health/live").status == 200


def test_no_worker_outlives_the_supervisor(stage: Stage) -> None:
    """Workers that are busy with streams die too, and their port is free for the next gateway."""
    gate = Gate()
    config = configuration(backend(stage.upstream(held_stream(gate))), server={"workers": 3})
    gateway = stage.gateway(config)
    open_streams = streams(stage, gateway, 12)
    workers = gateway.workers
    gateway.process.kill()
    gateway.process.wait()
    wait_until(lambda: not any(map(lives, workers)), "every worker is dead", timeout=2.0)
    for client in open_streams:
        assert not ended_well(client)
    gate.open()
    again = stage.gateway(config)
    assert again.port == gateway.port and again.ask("POST", CHAT, chat_request(stream=True)).complete


def test_a_second_gateway_on_the_same_port_is_refused_in_one_line(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--port", str(gateway.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert second.returncode == 2
    assert second.stderr == f"headrace: cannot listen on 127.0.0.1 port {gateway.port}: Address already in use\n"
    assert gateway.ask("GET", "/health/live").status == 200


def test_a_worker_that_cannot_start_is_told_in_one_line_and_nothing_stays(stage: Stage) -> None:
    # What is known to fail is found before there is a worker; here nobody looks.
    unforeseen = "import sys; from gateway import cli; from gateway.cli import serve"
    unforeseen += "; serve.attempt = lambda config, report: None; sys.exit(cli.main(sys.argv[1:]))"
    run = subprocess.run(
        [sys.executable, "-c", unforeseen, "serve", "--port", "0", "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, "GATEWAY_UPSTREAMS": "m=mock://x?nix=1", "GATEWAY_API_KEYS": "some-key-of-a-test"},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("headrace: ") and run.stderr.count("\n") == 1, run.stderr


def test_a_reload_that_is_asked_for_before_anybody_listens_comes_then() -> None:
    asked = "import os, signal, sys; from gateway import cli; from gateway.cli import serve"
    asked += "; once = iter([os.getpid()])"
    asked += "; serve.attempt = lambda config, report: [os.kill(pid, signal.SIGHUP) for pid in once]"
    asked += "; sys.exit(cli.main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", asked, "serve", "--port", "0", "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, "GATEWAY_UPSTREAMS": "m=mock://x", "GATEWAY_API_KEYS": "some-key-of-a-test"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "reloaded" in line:
                break
        assert "listening" in said and "reloaded" in said
        process.send_signal(signal.SIGINT)  # without the pause of SIGTERM
        process.stdout.read()
    assert process.returncode == 0


def test_least_connections_counts_the_calls_of_all_workers(stage: Stage) -> None:
    gate = Gate()
    peers = [stage.upstream(held_stream(gate)) for _ in range(3)]
    gateway = stage.gateway(configuration(backend(*peers), server={"workers": 4}))
    streams(stage, gateway, 30)
    at_each = [len(peer.ledger.requests) for peer in peers]
    assert max(at_each) - min(at_each) <= 1, at_each
    gate.open()


def test_a_worker_with_far_more_connections_than_the_others_sheds_some(stage: Stage) -> None:
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    stopped = gateway.workers[1]
    os.kill(stopped, signal.SIGKILL)  # until it is back, every new connection that is accepted is the other's
    clients: list[Client] = []
    other = next(pid for pid in gateway.workers if pid != stopped)
    while len(clients) < 60:
        client = stage.connect(gateway)
        if owner(gateway, client) == other:
            clients.append(client)
        else:
            client.close()
    time.sleep(1.0)  # many sweeps: each worker sees the other's count, and that it stays so
    closing = 0
    for client in clients:
        client.request("GET", "/health/live")
        closing += client.response().header("connection") == "close"
    assert 20 <= closing < 60


def test_a_burst_of_connections_is_not_taken_for_a_skew(stage: Stage) -> None:
    """Whichever worker counts its part first does not yet see the other's."""
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    for _ in range(20):
        clients = [Client(gateway.port) for _ in range(48)]
        time.sleep(0.06)  # a sweep of each
        for client in clients:
            client.request("GET", "/health/live")
        assert [client.response().header("connection") for client in clients] == [None] * 48
        for client in clients:
            client.close()


def test_a_signal_to_the_whole_group_means_what_it_means_to_the_supervisor(stage: Stage) -> None:
    """A service manager signals every process of a service: running streams end by themselves all the same."""
    gate = Gate()
    gateway = stage.gateway(configuration(backend(stage.upstream(held_stream(gate))), server={"workers": 2}))
    open_streams = streams(stage, gateway, 8)
    for pid in (*gateway.workers, gateway.process.pid, *gateway.workers):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: any(line["msg"] == "draining" for line in gateway.log_lines()), "the drain begins")
    time.sleep(0.2)  # what would cut them comes at once
    gate.open()
    assert all(client.finish().complete for client in open_streams)
    gateway.wait_exit(0)


def test_a_worker_that_hangs_does_not_keep_the_gateway_alive(stage: Stage) -> None:
    config = configuration(backend(stage.upstream()), server={"workers": 2, "drain_timeout": "100ms"})
    gateway = stage.gateway(config)
    stopped = gateway.workers[0]
    os.kill(stopped, signal.SIGSTOP)
    gateway.process.send_signal(signal.SIGTERM)
    gateway.wait_exit(0, timeout=20.0)
    assert not lives(stopped)
