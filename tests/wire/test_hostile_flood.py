"""Thousands of hostile messages of both sides, in any order, between good calls on the same connections.

Every good call is answered right, no hostile one looks like success, no request of the upstream's has two readings, and
the gateway's memory stays as it was. HEADRACE_HOSTILE_COUNT (default 5000) sets how many hostile messages,
HEADRACE_HOSTILE_SEED which; a seed that failed plays the same again.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.wire import answers
from tests.wire.client import Client, Incomplete, Response, build_request
from tests.wire.hostile import BODY_LIMIT, CHAT, HOSTILE, SMUGGLED, judge_forwarded
from tests.wire.hostile_answers import EVIL, judge
from tests.wire.process import Gateway
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

COUNT = int(os.environ.get("HEADRACE_HOSTILE_COUNT", "5000"))
SEED = int(os.environ.get("HEADRACE_HOSTILE_SEED", "1"))
CLIENTS = 4
#: Of all messages, so many are played before the memory is looked at for the first time.
WARM_UP = 0.3
#: Bytes that the process may grow by after that. One leaked body of the table is 60 kB.
GROWTH_LIMIT = 8 << 20
#: What comes on a connection while it carries the next call cannot be told from its answer: HTTP/1.1 has no ids. These
#: come late enough for that; alone on their connection they are tested in test_hostile_answers.
TOO_LATE = {"14 two answers apart", "14 more than its length, later"}
#: Slow, and no worse than others.
SLOW = {"19 a head byte by byte"}
DEEDS = sorted(set(EVIL) - TOO_LATE - SLOW)
ATTACKS = sorted(HOSTILE)


@dataclass
class Step:
    """One message: good, or hostile by one of the tables."""

    id: str
    attack: str = ""
    deed: str = ""
    stream: bool = False
    #: Sent in one write with the step behind it.
    pipelined: bool = False

    @property
    def body(self) -> bytes:
        told = {"id": self.id, "deed": self.deed}
        return json.dumps({"model": "m", "stream": self.stream, "metadata": told}, separators=(",", ":")).encode()

    @property
    def data(self) -> bytes:
        if self.attack:
            return HOSTILE[self.attack][0] + SMUGGLED
        return build_request("POST", CHAT, self.body, [("X-Request-Id", self.id)])


def plan(dice: random.Random) -> Iterator[list[Step]]:
    """Runs of messages, each for a connection of its own, without end."""
    number = itertools.count()
    while True:
        run: list[Step] = []
        for _ in range(dice.randrange(1, 12)):
            step = Step(f"call-{next(number)}", stream=dice.random() < 0.3, pipelined=dice.random() < 0.3)
            if dice.random() < 0.25:
                step.deed = dice.choice(DEEDS)
            run.append(step)
        if dice.random() < 0.9:
            run.append(Step(f"call-{next(number)}", attack=dice.choice(ATTACKS)))
        yield run


def play(x: Exchange) -> None:
    """The upstream: by the deed that the request names."""
    told = x.request.json()["metadata"]
    if told["deed"]:
        return EVIL[told["deed"]].script(x)
    if x.request.json().get("stream"):
        return answers.stream([answers.event({"content": told["id"]}), answers.DONE], pieces="whole")(x)
    answers.chat(told["id"])(x)


class Flood:
    """Clients that play runs until so many hostile messages were made."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.runs = plan(random.Random(SEED))
        self.lock = threading.Lock()
        self.made: list[Step] = []
        self.hostile = 0
        self.errors: list[str] = []

    def play(self, until: int) -> None:
        threads = [threading.Thread(target=self._drive, args=[until]) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.errors, f"seed {SEED}: {self.errors[0]}"

    def _drive(self, until: int) -> None:
        while not self.errors and self.hostile < until:
            with self.lock:
                run = next(self.runs)
            client = Client(self.gateway.port, timeout=20)
            try:
                self._make(run, client)
            except (AssertionError, Incomplete, OSError) as error:
                self.errors.append(f"{error!r} in {run}")
            finally:
                client.close()

    def _make(self, run: list[Step], client: Client) -> None:
        """Send *run* on *client*, and judge each answer. A broken one ends the connection, and the run with it."""
        for at, step in enumerate(run):
            behind = run[at + 1] if step.pipelined and at + 1 < len(run) else None
            data = b"" if at and run[at - 1].pipelined else step.data  # it may have been sent with the one before
            try:
                client.send(data + behind.data if behind else data)
            except (BrokenPipeError, ConnectionResetError):
                assert step.attack or (behind and behind.attack), step
            response = client.response()
            with self.lock:
                self.made.append(step)
                self.hostile += bool(step.attack or step.deed)
            judge_answer(step, response)
            if step.attack or not response.complete:
                assert client.read_end() == b""
                return


def judge_answer(step: Step, response: Response) -> None:
    if step.attack:
        assert (response.status, response.complete) == (HOSTILE[step.attack][1], True), (step, response)
        return
    assert response.header("x-request-id") == step.id, (step, response)
    if step.deed:
        judge(EVIL[step.deed].seen, response)
    elif step.stream:
        assert response.complete, (step, response)
        assert response.events == [answers.event({"content": step.id}), answers.DONE], (step, response)
    else:
        assert (response.status, response.body) == (200, answers.chat_body(step.id)), (step, response)


@pytest.mark.timeout(900)
def test_no_hostile_message_harms_a_good_call(stage: Stage) -> None:
    upstream = stage.upstream(play)
    limits = {"body_limit": BODY_LIMIT}
    gateway = stage.gateway(configuration(backend(upstream, usage="observe"), server=limits), dev=False)
    flood = Flood(gateway)
    flood.play(int(COUNT * WARM_UP))
    before = gateway.rss()
    flood.play(COUNT)
    growth = gateway.rss() - before
    kinds = Counter("attack" if step.attack else "deed" if step.deed else "good" for step in flood.made)
    print(f"\n{dict(kinds)}; memory grew by {growth / 1e6:.1f} MB", end="")
    judge_upstream(flood.made, upstream)
    assert growth < GROWTH_LIMIT


def judge_upstream(made: list[Step], upstream: Upstream) -> None:
    """Each request had one reading, was a client's own, byte for byte, and came once; lost ones may come once more."""
    sent = {step.id: step.body for step in made if not step.attack}
    seen: Counter[str] = Counter()
    for request in upstream.requests:
        id = request.header("x-request-id") or ""
        body = sent.get(id)  # none for one that was pipelined behind an answer that broke
        judge_forwarded(request, body)
        seen[id] += 1
    assert sent.keys() <= seen.keys()
    lost = {step.id for step in made if step.deed and EVIL[step.deed].lost}
    twice = {id: count for id, count in seen.items() if count > 1 + (id in lost)}
    assert not twice, twice
