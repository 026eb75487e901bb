"""Every client in front of every backend, by the vendors' own packages: what is asked for comes, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.wire.doors import CHATS, Clients, clients
from tests.wire.houses import ANSWERS, Houses
from tests.wire.process import Configuration, Gateway
from tests.wire.stage import Stage

#: What a door has no word for.
UNSAID = {("/v1/responses", "stop"), ("/api/generate", "tools"), ("/api/generate", "parallel")}
#: The scripted Ollama thinks otherwise at its own door.
HUMS = {("/api/generate", "ollama", "thinking")}
#: Doors whose streams are relayed in OpenAI's dialect.
RELAYED = {("/v1/chat/completions", house) for house in ("openai", "chatonly", "mock")}
#: And those whose calls are in the backend's own dialect.
UNTOUCHED = RELAYED | {
    *(("/v1/responses", "mock"), ("/v1/messages", "anthropic")),
    *(("/api/chat", "ollama"), ("/api/generate", "ollama")),
}
SPOKEN = {"/v1/messages": "anthropic", "/api/chat": "ollama", "/api/generate": "ollama"}
SPEAKS = {house: house for house in ("anthropic", "ollama", "tgi")}
CASES = [
    (door, house, scenario)
    for scenario, told in ANSWERS.items()
    for house in told
    for door in CHATS
    if (door, scenario) not in UNSAID
    and not (house == "openai" and door == "/v1/responses")  # its own door, of which the scripted server knows nothing
]


@pytest.fixture(scope="module")
def houses(module_stage: Stage) -> Houses:
    return Houses(module_stage)


@pytest.fixture(scope="module")
def config(houses: Houses) -> Configuration:
    return houses.config()


@pytest.fixture(scope="module")
def module_clients(module_gateway: Gateway) -> Iterator[Clients]:
    with clients(module_gateway.port) as made:
        yield made


@pytest.mark.parametrize(("door", "house", "scenario"), CASES)
def test_what_a_backend_says_is_what_the_client_hears(
    gateway: Gateway, houses: Houses, module_clients: Clients, door: str, house: str, scenario: str
) -> None:
    asked = houses.asked(house, scenario)
    expected = ANSWERS[scenario][house]
    for stream in (False, True):
        before = len(gateway.calls(path=door))
        heard = CHATS[door](module_clients, asked, stream)
        text = json.loads(heard.text) if scenario == "schema" and house != "tgi" else heard.text
        assert (text, heard.calls, heard.finish) == (expected.text, list(expected.calls), expected.finish)
        assert heard.thought == ("Hm." if (door, house, scenario) in HUMS else expected.thought)
        line = gateway.wait_call(before + 1, path=door)
        assert (line["model"], line["status"], line["upstream"]) == (asked.model, 200, house)
        assert (line["prompt_tokens"], line["completion_tokens"]) == heard.tokens
        dialects = f"{SPOKEN.get(door, 'openai')}>{SPEAKS.get(house, 'openai')}"
        assert line["translated"] == (None if (door, house) in UNTOUCHED else dialects)
        # OpenAI's package leaves at [DONE], which may be before the last chunk of a stream that is relayed
        assert line["ending"] == "--" or (stream and (door, house) in RELAYED)
