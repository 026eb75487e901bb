"""Least connections over several workers: 1,000 mixed calls, 30 at a time, seen from the peers.

Every call is held at a gate of its own. Each round ends ten at random, so that the peers are as uneven as chance has
it, and begins ten at once, which come to different workers within a fraction of a millisecond. Calls only come while a
round begins, so what each peer has at its end is the most that it had at any moment.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.client import Client, build_request, chat_request
from tests.wire.process import Gateway, wait_until
from tests.wire.stage import Stage, backend, configuration
from tests.wire.upstream import Exchange, Upstream

WORKERS, PEERS, AT_ONCE, CALLS, TURN = 4, 3, 30, 1000, 10
CHAT = "/v1/chat/completions"
WARM_UP = "warm-up"


class Calls:
    """Calls under way, each held by the peers until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.gates: dict[str, Gate] = {}
        self.running: dict[Client, str] = {}

    def script(self, x: Exchange) -> None:
        """By turns: a stream that has begun, an answer that is not there yet, and one of which a half has come."""
        asked = x.request.json()
        if asked["user"] == WARM_UP:
            return answers.chat()(x)
        gate = self.gates[asked["user"]]
        if asked.get("stream"):
            return answers.stalled_stream(gate, answers.chat_events(2, done=False), [answers.DONE])(x)
        if int(asked["user"]) % 3 == 1:
            return answers.stalled(gate)(x)
        whole = answers.head(200, answers.JSON_TYPE, ("content-length", "200000")) + b'"' + b"x" * 199_998 + b'"'
        x.send(whole[:100_000])
        x.stall(gate)
        x.send(whole[100_000:])

    def begin(self, clients: Sequence[Client]) -> None:
        """One call for each, all within a fraction of a millisecond."""
        requests: list[bytes] = []
        for client in clients:
            number = str(self.begun)
            self.begun += 1
            self.gates[number] = Gate()
            self.running[client] = number
            requests.append(build_request("POST", CHAT, chat_request(stream=int(number) % 3 == 0, user=number)))
        for client, request in zip(clients, requests, strict=True):
            client.send(request)

    def end(self, client: Client) -> bool:
        """Let *client*'s call end well; whether its connection may be used again."""
        self.gates.pop(self.running.pop(client)).open()
        response = client.response()
        assert response.status == 200 and response.complete
        return response.header("connection") != "close"


def loads(peers: Sequence[Upstream]) -> list[int]:
    return [sum(request.answered is None for request in peer.requests) for peer in peers]


def taken(peers: Sequence[Upstream]) -> list[int]:
    return [len(peer.requests) for peer in peers]


def clients_of(stage: Stage, gateway: Gateway) -> list[Client]:
    """Clients whose workers have had an answer of every peer: one that has not answered yet gets fewer calls."""
    clients = [stage.connect(gateway) for _ in range(AT_ONCE)]
    for _ in range(20):
        for client in clients:
            client.chat(user=WARM_UP)
            assert client.response().status == 200
    return clients


def test_four_workers_keep_three_peers_within_one_of_even(stage: Stage) -> None:
    calls = Calls()
    peers = [stage.upstream(calls.script) for _ in range(PEERS)]
    gateway = stage.gateway(configuration(backend(*peers), server={"workers": WORKERS}))
    free = clients_of(stage, gateway)
    first = taken(peers)
    chance = random.Random(4)
    while calls.begun < CALLS:
        calls.begin(free)
        wait_until(lambda: sum(taken(peers)) == sum(first) + calls.begun, "every call has come to a peer")
        load = loads(peers)
        assert sum(load) == AT_ONCE and all(abs(number - AT_ONCE // PEERS) <= 1 for number in load), load
        free = chance.sample(list(calls.running), TURN)
        free = [client if calls.end(client) else stage.connect(gateway) for client in free]
        wait_until(lambda: sum(loads(peers)) == AT_ONCE - TURN, "the calls that were let go have ended")
    for client in list(calls.running):
        calls.end(client)
    shares = [number - before for number, before in zip(taken(peers), first, strict=True)]
    assert sum(shares) == CALLS and all(0.8 * CALLS / PEERS <= share <= 1.2 * CALLS / PEERS for share in shares), shares
