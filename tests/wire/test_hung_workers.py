"""A worker whose loop does not turn any more is killed and replaced; a host that stood still as a whole is not."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from gateway.vigil import HUNG
from tests.wire.accepted import Gate
from tests.wire.client import Client
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.test_host_health import ask
from tests.wire.test_workers import ended_well, held_stream, owner, streams
from tests.wire.upgrading import UPGRADED, upgrade

KILLED = "a worker hangs and is killed"
#: Seconds in which a worker that hangs is killed, and more on a machine that is busy.
KILLED_WITHIN = HUNG + 10.0


def said(gateway: Gateway, text: str) -> list[dict[str, object]]:
    return [line for line in gateway.log_lines() if line["msg"] == text]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) == "T", "it stands still")


def asked(stage: Stage, gateway: Gateway, timeout: float) -> Client:
    """A connection of its own that has asked for something."""
    client = stage.connect(gateway, timeout=timeout)
    client.request("GET", "/health/live")
    return client


def test_a_worker_that_hangs_is_killed_and_what_waited_for_it_is_served_by_its_successor(stage: Stage) -> None:
    gate = Gate()
    gateway = stage.gateway(configuration(backend(stage.upstream(held_stream(gate))), server={"workers": 2}))
    open_streams = streams(stage, gateway, 24)
    held = {client: owner(gateway, client) for client in open_streams}
    victim = held[open_streams[0]]
    assert len(set(held.values())) == 2, "the kernel gave every connection to one worker"
    stop(victim)
    waiting = [asked(stage, gateway, KILLED_WITHIN + 5.0) for _ in range(24)]
    wait_until(lambda: said(gateway, KILLED), "it is killed", timeout=KILLED_WITHIN)
    (line,) = said(gateway, KILLED)
    assert (line["level"], line["pid"], line["state"]) == ("warning", victim, "T (stopped)")
    assert line["worker"] in (0, 1) and HUNG <= float(str(line["seconds"])) < KILLED_WITHIN
    wait_until(lambda: len(gateway.workers) == 2 and victim not in gateway.workers, "its successor lives")
    answers = [client.response() for client in waiting]
    assert {answer.status for answer in answers} == {200}, "those in its backlog are not lost"
    gateway.wait_gauge(2, "gateway_workers", timeout=5.0)
    reasons = {reason: gateway.gauge("gateway_worker_restarts_total", reason=reason) for reason in ("hung", "died")}
    assert reasons == {"hung": 1, "died": 0}
    # The other one's calls know nothing of it, nor were its clients sent away for the sake of a balance.
    gate.open()
    assert {ended_well(client) == (pid != victim) for client, pid in held.items()} == {True}


def test_a_host_that_stood_still_as_a_whole_loses_no_worker(stage: Stage) -> None:
    """As a suspended machine, or a group that a terminal stopped, which goes on in any order."""
    gateway = stage.gateway(configuration(backend(stage.upstream()), server={"workers": 2}))
    supervisor, workers = gateway.process.pid, gateway.workers
    client = stage.connect(gateway, timeout=10.0)
    first = owner(gateway, client)

    def waits() -> int:
        """How often the supervisor has waited: once a second, and at a signal."""
        lines = Path(f"/proc/{supervisor}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    def look() -> None:
        before = waits()
        wait_until(lambda: waits() >= before + 4, "it has looked after them", timeout=20.0)

    with ExitStack() as going_on:
        for pid in workers:
            going_on.callback(os.kill, pid, signal.SIGCONT)
            stop(pid)
        look()  # or it would find that they have swept since it looked last
        going_on.callback(os.kill, supervisor, signal.SIGCONT)
        stop(supervisor)
        time.sleep(HUNG + 2.0)
        os.kill(first, signal.SIGCONT)
        wait_until(lambda: ask(client)["workers_hung"] == 1, "it has swept, and sees that the other has not")
        os.kill(supervisor, signal.SIGCONT)
        look()
    look()
    assert gateway.workers == workers and not said(gateway, KILLED)


def test_a_worker_that_hangs_while_it_drains_does_not_have_the_time_of_the_drain(stage: Stage) -> None:
    gate = Gate()
    config = configuration(backend(stage.upstream(held_stream(gate))), server={"workers": 1, "drain_timeout": "300s"})
    gateway = stage.gateway(config)
    (stream,) = streams(stage, gateway, 1)
    (former,) = gateway.workers
    assert upgrade(gateway)["msg"] == UPGRADED
    stop(former)
    wait_until(lambda: former not in gateway.workers, "it is killed", timeout=KILLED_WITHIN)
    assert [line["pid"] for line in said(gateway, KILLED)] == [former]
    assert gateway.gauge("gateway_worker_restarts_total") == 0 and len(gateway.workers) == 1
    gate.open()
    assert not ended_well(stream)
