"""An exception that nobody expected: its log line names the place in our code, and its client learns nothing of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.call import Call
from gateway.observe.access import TEXT_LIMIT
from gateway.observe.logs import Level, Log, Stamp, place_of
from gateway.pauses import Pauses
from tests.unit.in_process import InProcess, Transport, chat, running

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"((?:gateway|protocols)/[a-z0-9_/]+\.py):([0-9]+) [A-Za-z0-9_]+")
SECRET = "the text of a prompt"


class Lines:
    """Where a log writes."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, object]] = []

    def record(self, fields: Mapping[str, object]) -> None:
        self.told.append(fields)


def code(module: str, text: str, **names: object) -> Callable[[], object]:
    """The function `step` of *text*, which is code of *module*."""
    scope: dict[str, Any] = {"__name__": module, **names}
    exec(compile(text, "/somewhere/else.py", "exec"), scope)
    return cast("Callable[[], object]", scope["step"])


def raised(step: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        step()
    return caught.value


def test_the_place_is_the_innermost_of_our_code_whoever_raised() -> None:
    library = code("msgspec.json", "def step():\n    raise ValueError('x')")
    inner = code("protocols.ollama.hub", "\n\ndef step():\n    call()", call=library)
    outer = code("gateway.relay", "def step():\n    call()", call=inner)
    assert place_of(raised(outer)) == "protocols/ollama/hub.py:4 step"
    assert place_of(raised(library)) == "msgspec/json.py:2 step"
    assert place_of(ValueError("never raised")) == ""


def test_a_line_tells_type_text_and_place_and_is_bounded() -> None:
    lines = Lines()
    log = Log(lines, Level.ERROR, Stamp())
    named = "f" * 2 * TEXT_LIMIT
    log.raised("it raised", raised(code("gateway.relay", f"def {named}():\n    1 / 0\nstep = {named}")), host="h")
    [line] = lines.told
    assert {
        "msg": "it raised",
        "level": "error",
        "host": "h",
        "error": "ZeroDivisionError: division by zero",
    }.items() <= (line.items())
    assert str(line["at"]).startswith("gateway/relay.py:2 fff")
    assert len(str(line["at"])) <= TEXT_LIMIT


def test_bytes_that_could_not_be_decoded_are_not_told() -> None:
    lines = Lines()
    Log(lines, Level.ERROR, Stamp()).raised("x", raised(lambda: (SECRET.encode() + b"\xff").decode()))
    assert SECRET not in str(lines.told)
    assert "UnicodeDecodeError: " in str(lines.told[0]["error"])


def test_an_exception_that_cannot_tell_what_it_is_is_told_by_its_type() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    lines = Lines()
    Log(lines, Level.ERROR, Stamp()).raised("x", Mute())
    assert (lines.told[0]["error"], lines.told[0]["at"]) == ("Mute", "")


class Failing(Transport):
    """Raises at the first write."""

    failed = False

    def write(self, data: Any) -> None:
        if not self.failed:
            self.failed = True
            raise RuntimeError("the transport is broken")
        super().write(data)


@contextmanager
def broken(data: bytes) -> Iterator[tuple[InProcess, Failing, list[Mapping[str, object]]]]:
    """A gateway that got *data* from a client whose transport fails once; and what its log was told."""

    async def begun() -> tuple[InProcess, Failing, list[Mapping[str, object]]]:
        house, lines = InProcess(), Lines()
        house.gateway.log._lines = lines  # beside the calls' lines, which go on to the log file
        client, transport = house.gateway.clients.connection(), Failing()
        client.connection_made(transport)
        client.data_received(data)
        return house, transport, lines.told

    with running() as runner:
        house, transport, told = runner.run(begun())
        yield house, transport, told
        runner.run(house.close())


def line_at(told: list[Mapping[str, object]]) -> str:
    """The line of our sources that the only message names."""
    [line] = told
    assert line["error"] == "RuntimeError: the transport is broken"
    place = PLACE.fullmatch(str(line["at"]))
    assert place is not None, line
    return (ROOT / place[1]).read_text().splitlines()[int(place[2]) - 1]


def is_silent(transport: Failing) -> bool:
    said = b"".join(transport.written)
    return transport.failed and not any(word in said for word in (b"RuntimeError", b"broken", b".py", b"Traceback"))


def test_a_step_that_a_client_began_names_its_place_and_the_client_learns_nothing() -> None:
    with broken(b"NONSENSE\r\n\r\n") as (_, transport, told):
        assert told[0]["msg"] == "a step of a call raised"
        assert "write" in line_at(told)
        assert is_silent(transport)


def test_a_step_that_an_upstream_began_names_its_place() -> None:
    with broken(chat()) as (house, transport, told):
        house.upstream.data_received(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )
        assert told[0]["msg"] == "a step of a call raised"
        assert "write" in line_at(told)
        assert is_silent(transport)


def test_a_step_that_a_deadline_began_names_its_place() -> None:
    with broken(chat()) as (house, transport, told):
        for call in house.gateway.proxy.active:
            call.deadline = 1.0
        house.gateway.proxy.sweep(house.gateway.clock.now + 1e6)
        assert told[0]["msg"] == "a step of a call raised"
        assert "write" in line_at(told)
        assert is_silent(transport) and not house.gateway.proxy.active


def test_what_a_pauses_end_raises_is_told_with_its_call() -> None:
    told: list[tuple[Call, Exception]] = []

    def fail(call: Call) -> None:
        raise ValueError("a bug")

    async def waited() -> None:
        pauses = Pauses(fail, lambda call, error: told.append((call, error)))
        pauses.begin(cast("Call", "a call"), 0.0)
        while not told:
            await asyncio.sleep(0)

    with running() as runner:
        runner.run(waited())
    assert [(call, str(error)) for call, error in told] == [("a call", "a bug")]
