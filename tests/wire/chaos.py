"""What goes wrong in a chaos run: the deeds of its upstreams, the plan of its calls, and the clients that make them.

Owns the words both sides share and the clients' program. It refuses the gateway, the upstream and the verdict over the
whole run (`test_chaos`), which starts `python -m tests.wire.chaos PORT CALLS SEED` and reads one JSON object for each
call from it. The clients have a process of their own so that they do not wait for an interpreter that the upstream's
threads keep busy, nor those for one that clients keep busy: either would be taken for the gateway's delay.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.wire import answers
from tests.wire.client import Client, Incomplete, Response
from tests.wire.upstream import Exchange

CLIENTS = 16
EVENTS = 5


# --- what upstreams do, by the word in the request ---


def events_of(id: str) -> list[bytes]:
    return [answers.event({"content": f"{id} {number}"}) for number in range(EVENTS)]


def fine(x: Exchange, id: str, pause: float) -> None:
    x.sleep(pause)
    if not x.request.json().get("stream"):
        return answers.chat(id)(x)
    x.send(answers.sse_head())
    for event in events_of(id):
        x.send(answers.chunk(event))
        x.sleep(pause)
    x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)


def begin(x: Exchange, id: str, pause: float) -> None:
    """The first half of an answer."""
    x.sleep(pause)
    if x.request.json().get("stream"):
        x.send(answers.sse_head() + b"".join(map(answers.chunk, events_of(id)[:2])))
    else:
        body = answers.chat_body(id)
        x.send(answers.head(200, answers.JSON_TYPE, ("content-length", str(len(body)))) + body[: len(body) // 2])
    x.sleep(pause)


def stall(x: Exchange, id: str, pause: float) -> None:
    x.await_abort(20)


def begin_and_stall(x: Exchange, id: str, pause: float) -> None:
    begin(x, id, pause)
    x.await_abort(20)


def flood(x: Exchange, id: str, pause: float) -> None:
    if not x.request.json().get("stream"):
        return begin_and_stall(x, id, pause)
    x.send(answers.sse_head())
    block = answers.chunk(events_of(id)[0]) * 1000
    while True:
        x.send(block)


def refuse(x: Exchange, id: str, pause: float) -> None:
    answers.error(500, id)(x)


def leave(x: Exchange, id: str, pause: float) -> None:
    x.sleep(pause)
    x.close()


def cut(x: Exchange, id: str, pause: float) -> None:
    begin(x, id, pause)
    x.sleep(0.01)
    x.fin()


def reset(x: Exchange, id: str, pause: float) -> None:
    begin(x, id, pause)
    x.sleep(0.01)
    x.rst()


DEEDS = {deed.__name__: deed for deed in (fine, stall, begin_and_stall, flood, refuse, leave, cut, reset)}
#: After these the client has to leave, since no answer ever ends.
ENDLESS = {"stall", "begin_and_stall", "flood"}
BROKEN = {"cut", "reset"}


def play(x: Exchange) -> None:
    told = x.request.json()["metadata"]
    DEEDS[told["deed"]](x, told["id"], told["pause"])


# --- what clients do ---


@dataclass
class Call:
    """One call: what its upstream does, and whether, when and how its client leaves."""

    id: str
    deed: str
    stream: bool
    pause: float
    leaves_after: float | None
    leaves: Callable[[Client], None]
    #: when the client left, monotonic seconds
    left: float | None = None
    outcome: str = ""


def plan(count: int, seed: int) -> list[Call]:
    """The calls of a run; the same for both processes."""
    dice = random.Random(seed)
    return [plan_call(number, dice) for number in range(count)]


def plan_call(number: int, dice: random.Random) -> Call:
    deed = dice.choices(list(DEEDS), [50, 9, 9, 1, 5, 5, 10, 10])[0]
    leaving = deed in ENDLESS or dice.random() < 0.1
    return Call(
        id=f"call-{number}",
        deed=deed,
        stream=dice.random() < 0.5,
        pause=dice.choice([0.0, 0.0, 0.001, 0.005]),
        leaves_after=dice.choice([0.0, 0.002, 0.01, 0.05]) if leaving else None,
        leaves=dice.choice([Client.abort, Client.close]),
    )


def make(call: Call, client: Client) -> bool:
    """Make *call* on *client*; True where the connection can be used again."""
    told = {"id": call.id, "deed": call.deed, "pause": call.pause}
    client.id = call.id
    client.chat(stream=call.stream, metadata=told)
    if call.leaves_after is not None:
        time.sleep(call.leaves_after)
        call.left = time.monotonic()
        call.leaves(client)
        call.outcome = "left"
        return False
    response = client.response()
    call.outcome = judge(call, response)
    return response.complete and not response.ended and response.header("connection") != "close"


def judge(call: Call, response: Response) -> str:
    """What came, in a word; bytes of another call, or success where there was none, fail at once."""
    if call.deed == "refuse":
        assert (response.status, response.body) == (500, answers.error_body(call.id))
        return "refused"
    if call.deed == "leave":
        assert (response.status, response.code) == (502, "upstream_lost")
        return "lost"
    if call.deed in BROKEN and response.status == 502:
        return "lost"
    assert response.status == 200, response
    if not call.stream:
        body = answers.chat_body(call.id)
        assert response.complete == (call.deed == "fine")
        assert response.body == body if response.complete else body.startswith(response.body)
        return "fine" if response.complete else "broken"
    if call.deed == "fine":
        assert response.complete and response.events == [*events_of(call.id), answers.DONE]
        return "fine"
    *whole, last = response.events
    assert whole == events_of(call.id)[: len(whole)] and b'"error"' in last
    assert not response.complete and response.ended == "fin"
    return "broken"


def drive(calls: Iterator[Call], lock: threading.Lock, port: int, errors: list[str]) -> None:
    """One client after another's heart: take calls until there are none."""
    client: Client | None = None
    while not errors:
        with lock:
            call = next(calls, None)
        if call is None:
            break
        try:
            client = client or Client(port, timeout=20)
            reusable = make(call, client)
        except (AssertionError, Incomplete, OSError) as error:
            errors.append(f"{call}: {error!r}")
            break
        if not reusable:
            client.close()
            client = None
    if client is not None:
        client.close()


def main(port: int, count: int, seed: int) -> int:
    """Make the calls and print what became of each; 1, and nothing but the errors, where one went wrong."""
    calls = plan(count, seed)
    errors: list[str] = []
    lock, rest = threading.Lock(), iter(calls)
    threads = [threading.Thread(target=drive, args=[rest, lock, port, errors]) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for call in calls if not errors else ():
        print(json.dumps({"id": call.id, "left": call.left, "outcome": call.outcome}))
    print(*errors, sep="\n", end="", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
