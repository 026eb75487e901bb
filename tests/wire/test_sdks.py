"""The vendors' SDKs, unmodified, through the gateway to every scripted backend: one table of clients, backends and
features. A cell that is not served is refused clearly, and stands in `REFUSED`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest

from tests.wire.anthropic_server import REQUEST_ID  # the vendor's own, relayed to the vendor's own client
from tests.wire.process import Configuration, Gateway
from tests.wire.sdk_backends import BROKEN, BUSY, IMAGE_OF, REFUSALS, SCENES, SCHEMA_OF, Error, Players
from tests.wire.sdk_clients import CLIENTS, DATA_URL, PNG_TEXT, SCHEMA, Question
from tests.wire.stage import Stage, configuration

URL = "https://example.com/a.png"
FEATURES = ("chat", "tools", "parallel", "schema", "image", "image url")
#: What has no meaning, as (client, backend, feature): the field or words that the refusal has to name.
REFUSED = {
    ("*", "ollama", "image url"): "must be a data URL",  # the gateway fetches nothing for a client
    ("*", "anthropic", "embeddings"): "cannot be used at",
    ("*", "tgi", "embeddings"): "cannot be used at",
}
#: Cells that nobody can ask or answer: this client gives images as bytes; this backend calls one tool at most, or none.
VOID = {
    ("ollama", "*", "image url"),
    ("*", "tgi", "parallel"),
    ("*", "mock", "parallel"),
    ("*", "mock", "schema"),
    ("responses", "*", "embeddings"),
    ("anthropic", "*", "embeddings"),
}
#: The backend that speaks a client's dialect, and is relayed to it as it is.
NATIVE = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic", "/api/chat": "ollama"}
Cell = tuple[str, str, str]


def names(cell: Cell) -> Iterator[Cell]:
    """The cell itself, and the rows and columns that it is in."""
    client, backend, feature = cell
    yield from product((client, "*"), (backend, "*"), (feature,))


def refusal(cell: Cell) -> str | None:
    return next((REFUSED[name] for name in names(cell) if name in REFUSED), None)


ASKABLE = [
    cell
    for cell in product(CLIENTS, SCENES, (*FEATURES, "embeddings"))
    if not any(name in VOID for name in names(cell))
]
SERVED = [cell for cell in ASKABLE if refusal(cell) is None]
EVERYWHERE = list(product(CLIENTS, SCENES))


@pytest.fixture(scope="module")
def players(module_stage: Stage) -> Players:
    return Players(module_stage)


@pytest.fixture(scope="module")
def config(players: Players) -> Configuration:
    return configuration(*players.backends)


@pytest.fixture
def client(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Any]:
    client = CLIENTS[request.param](f"http://127.0.0.1:{gateway.port}")
    yield client
    client.close()


both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def question(backend: str, feature: str, stream: bool = False) -> Question:
    scene = SCENES[backend][feature.removesuffix(" url")]
    image = {"image": "base64", "image url": URL}.get(feature, "")
    return Question(scene.model, scene.text, stream, feature in ("tools", "parallel"), feature == "schema", image)


@both_ways
@pytest.mark.parametrize(
    ("client", "backend", "feature"), [cell for cell in SERVED if cell[2] != "embeddings"], indirect=["client"]
)
def test_every_client_is_served_by_every_backend(
    client: Any, players: Players, backend: str, feature: str, stream: bool
) -> None:
    players.prepare(backend, feature)
    scene = SCENES[backend][feature.removesuffix(" url")]
    asked = question(backend, feature, stream)
    said = client.ask(asked)
    assert (said.text, said.calls) == (scene.says, list(scene.calls))
    assert said.finish == ("calls" if scene.calls else "stop")
    assert said.written > 0
    assert said.read > 0
    if backend == "mock":
        return
    upstream = players.upstreams[backend]
    if feature == "schema":
        assert SCHEMA_OF[backend](upstream.requests[-1]) == SCHEMA
    if asked.image:
        url = URL if feature == "image url" else PNG_TEXT if backend == "ollama" else DATA_URL
        assert IMAGE_OF[backend](upstream.requests[-1]) == url
    if scene.hears:
        heard = client.tell(asked._replace(model=scene.hearer or scene.model), said, "rain")
        assert (heard.text, heard.calls, heard.finish) == (scene.hears, [], "stop")


@pytest.mark.parametrize(
    ("client", "backend", "feature"), [cell for cell in SERVED if cell[2] == "embeddings"], indirect=["client"]
)
def test_texts_are_embedded(client: Any, backend: str, feature: str) -> None:
    vectors = client.embed(SCENES[backend][feature].model, ["one", "two words"])
    assert len(vectors) == 2
    assert all(isinstance(number, int | float) for vector in vectors for number in vector)
    assert len({len(vector) for vector in vectors}) == 1


@both_ways
@pytest.mark.parametrize(
    ("client", "backend", "feature"), [cell for cell in ASKABLE if cell not in SERVED], indirect=["client"]
)
def test_what_has_no_meaning_is_refused_in_the_clients_words(
    client: Any, request: pytest.FixtureRequest, players: Players, backend: str, feature: str, stream: bool
) -> None:
    asked = question(backend, feature, stream)
    ask = partial(client.embed, asked.model, ["one"]) if feature == "embeddings" else partial(client.ask, asked)
    with pytest.raises(client.errors) as refused:
        ask()
    told = client.read(refused.value)
    assert (told.kind, told.status) == (client.kinds[400], 400)
    words = refusal((request.node.callspec.params["client"], backend, feature))
    assert words is not None and words in told.message
    assert players.upstreams[backend].requests == []


def failed(client: Any, gateway: Gateway, error: Error, stream: bool) -> None:
    """Ask for *error*, and judge what the SDK makes of it."""
    with pytest.raises(client.errors) as raised:
        client.ask(Question(error.model, error.text, stream))
    told = client.read(raised.value)
    status = error.streamed or error.status if stream else error.status
    assert told.status == status
    assert issubclass(told.kind, client.kinds.get(status, client.server_error))
    assert error.message in told.message
    if client.path.startswith("/v1"):  # Ollama's client knows no ids
        assert told.request_id == REQUEST_ID or gateway.wait_call(request_id=told.request_id)["status"] == status


@both_ways
@pytest.mark.parametrize(("client", "backend"), list(product(CLIENTS, REFUSALS)), indirect=["client"])
def test_a_refusal_comes_in_the_clients_words_and_is_not_tried_again(
    client: Any, gateway: Gateway, players: Players, backend: str, stream: bool
) -> None:
    failed(client, gateway, REFUSALS[backend], stream)
    assert len(players.upstreams[backend].requests) == 1


@both_ways
@pytest.mark.parametrize(("client", "backend"), EVERYWHERE, indirect=["client"])
def test_a_busy_backend_is_tried_again_and_then_told_in_the_clients_words(
    client: Any, gateway: Gateway, players: Players, backend: str, stream: bool
) -> None:
    players.prepare(backend, "busy")
    error = BUSY[backend]
    failed(client, gateway, error, stream)
    if backend != "mock":
        asks = 1 if client.path == "/v1/responses" else error.asks  # which may do more than generate
        assert len(players.upstreams[backend].requests) == asks


@both_ways
@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_an_unknown_model_is_refused(client: Any, gateway: Gateway, stream: bool) -> None:
    failed(client, gateway, Error("nobody", 404, "nobody"), stream)


@pytest.mark.parametrize(("client", "backend"), EVERYWHERE, indirect=["client"])
def test_a_stream_that_breaks_is_an_error_after_its_first_words(
    client: Any, gateway: Gateway, players: Players, backend: str
) -> None:
    players.prepare(backend, "broken")
    before = len(gateway.calls(ending="UD"))
    error = BROKEN[backend]
    gate = players.hold(backend)
    with client.listen(Question(error.model, error.text, stream=True)) as words:
        assert next(word for word in words if word)
        gate.open()
        with pytest.raises(client.errors) as broken:
            list(words)
    assert error.message in client.read(broken.value).message
    if NATIVE.get(client.path) != backend:  # whose own error makes the client leave, perhaps before its end has come
        assert gateway.wait_call(before + 1, ending="UD")["path"] == client.path


@pytest.mark.parametrize(("client", "backend"), EVERYWHERE, indirect=["client"])
def test_a_client_that_leaves_a_stream_ends_the_upstreams_work(
    client: Any, gateway: Gateway, players: Players, backend: str
) -> None:
    players.prepare(backend, "stall")
    before = len(gateway.calls(ending="CD"))
    with client.listen(question(backend, "stall", stream=True)) as words:
        assert next(word for word in words if word)
    if backend != "mock":
        players.upstreams[backend].ledger.wait_abort()
    assert gateway.wait_call(before + 1, ending="CD")["path"] == client.path


def test_answers_to_a_schema_are_json() -> None:
    for scenes in SCENES.values():
        if "schema" in scenes:
            assert set(json.loads(scenes["schema"].says)) == set(SCHEMA["properties"])
