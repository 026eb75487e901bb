"""Five backends with a script each, and what to ask of which so that they say something of every kind.

Owns the scenes: the model and words that make a backend answer so, what it answers, and what it must have been asked.
It refuses clients (`sdk_clients`) and judgement (`test_sdks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.wire import answers, anthropic_server, openai_server
from tests.wire.accepted import Gate
from tests.wire.ledger import Request
from tests.wire.ollama_server import OllamaServer
from tests.wire.stage import Stage, backend
from tests.wire.tgi_server import TgiServer
from tests.wire.upstream import Exchange, Script, Upstream

ARGUMENTS = openai_server.ARGUMENTS
#: Ollama's script invents arguments by their types.
INVENTED = {"city": "Köln", "days": 7}
TGI_TEXT = " Deep learning is a subset"
MOCK_TEXT = "Grüße 天空"


class Scene(NamedTuple):
    """*says*: the text of the answer. *calls*: tools that are called. *hears*: what *hearer*, or else the same model,
    answers to their result "rain".
    """

    model: str
    text: str = "Grüße 天空"
    says: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    hears: str = ""
    hearer: str = ""


class Error(NamedTuple):
    """*asks*: how often the backend is asked, where a call may be repeated. *streamed*: the status of a stream in its
    place, where the backend has begun one when it refuses.
    """

    model: str
    status: int
    message: str
    text: str = "Hello"
    asks: int = 1
    streamed: int = 0


class Players:
    """The scripted backends, as `stage` runs them."""

    def __init__(self, stage: Stage) -> None:
        self.tgi = TgiServer(TGI_TEXT)
        self.upstreams: dict[str, Upstream] = {
            "openai": stage.upstream(serve_openai),
            "anthropic": stage.upstream(anthropic_server.serve),
            "ollama": stage.upstream(OllamaServer()),
            "tgi": stage.upstream(self.tgi.serve),
        }

    @property
    def backends(self) -> list[dict[str, Any]]:
        """As the configuration has them; OpenAI's has no responses of its own."""
        native = ["/v1/chat/completions", "/v1/embeddings"]
        more: dict[str, Any] = {"openai": {"native": native}, "anthropic": {"auth": {"type": "bearer", "token": "sk"}}}
        told = [
            backend(upstream, name=name, protocol=name, models=MODELS[name], **more.get(name, {}))
            for name, upstream in self.upstreams.items()
        ]
        return told + [
            backend(f"mock://local?{query}", name=name, protocol="mock", models=[name], native=native)
            for name, query in MOCKS.items()
        ]

    def prepare(self, name: str, feature: str) -> None:
        """Have the script of backend *name* ready for *feature*; only TGI's has no words that make it."""
        self.tgi.text = openai_server.SCHEMED if feature == "schema" else TGI_TEXT
        self.tgi.arguments = ARGUMENTS if feature in ("tools", "parallel") else None
        self.tgi.breaks_after = 2 if feature == "broken" else None
        self.tgi.overloaded = feature == "busy"
        if (name, feature) == ("tgi", "stall"):
            self.upstreams["tgi"].answer = tgi_stall

    def hold(self, name: str) -> Gate:
        """Have backend *name* wait behind the first words of its next stream, until the gate is opened."""
        gate = Gate()
        if name in self.upstreams:
            upstream = self.upstreams[name]
            assert callable(upstream.first_answer)
            upstream.answer = held(upstream.first_answer, SENDS[name], gate)
        return gate


#: Writes until the first words of a stream that breaks have left, its head among them.
SENDS = {"openai": 1, "anthropic": 5, "ollama": 1, "tgi": 3}


def held(script: Script, sends: int, gate: Gate) -> Script:
    """*script*, waiting for *gate* after so many *sends*: what comes then comes in a read of its own."""

    def run(x: Exchange) -> None:
        write, left = x.send, [sends]

        def send(data: bytes) -> None:
            if not left[0]:
                x.stall(gate)
            left[0] = max(left[0] - 1, 0)
            write(data)

        setattr(x, "send", send)  # noqa: B010 - of this exchange only
        script(x)

    return run


#: Scenarios of `openai_server`, and what is refused: status, message, type, code.
SAID = ("echo", "tools", "parallel")
FAILS = {
    "limited": (429, "Rate limit reached for requests", "requests", "rate_limit_exceeded"),
    "long": (
        400,
        "This model's maximum context length is 7 tokens.",
        "invalid_request_error",
        "context_length_exceeded",
    ),
}


def serve_openai(x: Exchange) -> None:
    """OpenAI's API with embeddings and failures, beside the scenarios of `openai_server`."""
    fields = x.request.json()
    if x.request.target == "/v1/embeddings":
        texts = [fields["input"]] if isinstance(fields["input"], str) else fields["input"]
        data = [{"object": "embedding", "index": at, "embedding": [0.5, at]} for at in range(len(texts))]
        counts = {"prompt_tokens": 2, "total_tokens": 2}
        return answers.whole(200, answers.json_body({"object": "list", "data": data, "model": "m", "usage": counts}))(x)
    word = fields["model"].removeprefix("gpt-")
    if word in FAILS:
        status, message, kind, code = FAILS[word]
        return answers.whole(status, answers.error_body(message, kind, code))(x)
    if word not in ("broken", "stall"):
        return openai_server.serve(x)
    x.send(answers.sse_head() + answers.chunk(answers.event({"role": "assistant", "content": "Hello"})))
    if word == "stall":
        x.await_abort()
    x.send(answers.chunk(b"data: " + answers.error_body("The model broke") + b"\n\n") + answers.LAST_CHUNK)


def tgi_stall(x: Exchange) -> None:
    """The beginning of a stream."""
    x.send(answers.sse_head() + answers.chunk(answers.event({"role": "assistant", "content": "Deep"})))
    x.await_abort()


MODELS: dict[str, list[Any]] = {
    "openai": [
        *({f"gpt-{name}": name} for name in SAID),
        *(f"gpt-{name}" for name in FAILS),
        "gpt-broken",
        "gpt-stall",
    ],
    "anthropic": anthropic_server.MODELS,
    "ollama": ["llama3.2", "llava", "all-minilm"],
    "tgi": ["tgi"],
}
MOCKS = {
    "mock": "text=Gr%C3%BC%C3%9Fe+%E5%A4%A9%E7%A9%BA",
    "mock-busy": "error=429",
    "mock-cut": "text=One+two+three+four&cut_after=3",
    "mock-slow": "text=" + "+".join(["word"] * 100) + "&tokens_per_second=5",
}

_BOTH: tuple[tuple[str, Any], ...] = (("weather", ARGUMENTS), ("news", {}))
#: By backend and feature. What is not here, the backend cannot be made to say.
SCENES: dict[str, dict[str, Scene]] = {
    "openai": {
        "chat": Scene("gpt-echo", says="You said: Grüße 天空"),
        "tools": Scene("gpt-tools", calls=_BOTH[:1], hears="You said: rain"),
        "parallel": Scene("gpt-parallel", calls=_BOTH, hears="You said: rain"),
        "schema": Scene("gpt-echo", says=openai_server.SCHEMED),
        "image": Scene("gpt-echo", says="You said: Grüße 天空 (an image)"),
        "embeddings": Scene("gpt-echo"),
        "stall": Scene("gpt-stall"),
    },
    "anthropic": {
        "chat": Scene("claude-echo", says="You said: Grüße 天空"),
        "tools": Scene("claude-tools", says="Let me look.", calls=_BOTH[:1], hears="You said: rain"),
        "parallel": Scene(
            "claude-parallel", calls=(_BOTH[0], ("news", {})), hears="You said: rain rain", hearer="claude-echo"
        ),
        "schema": Scene("claude-echo", says=anthropic_server.SCHEMED),
        "image": Scene("claude-echo", says="You said: Grüße 天空"),
        "embeddings": Scene("claude-echo"),
        "stall": Scene("claude-stall"),
    },
    "ollama": {
        "chat": Scene("llama3.2", "say: Grüße 天空", "Grüße 天空"),
        "tools": Scene("llama3.2", calls=(("weather", INVENTED),), hears="weather said rain"),
        "parallel": Scene("llama3.2", "twice", calls=(("weather", INVENTED),) * 2, hears="weather said rain"),
        "schema": Scene("llama3.2", says='{"name":"K\\u00f6ln","age":7}'),
        "image": Scene("llava", says="I see 1 image of 70 bytes"),
        "embeddings": Scene("all-minilm"),
        "stall": Scene("llama3.2", "stall midway"),
    },
    "tgi": {
        "chat": Scene("tgi", says=TGI_TEXT),
        "tools": Scene("tgi", calls=_BOTH[:1]),
        "schema": Scene("tgi", says=openai_server.SCHEMED),
        "image": Scene("tgi", says=TGI_TEXT),
        "embeddings": Scene("tgi"),
        "stall": Scene("tgi"),
    },
    "mock": {
        "chat": Scene("mock", says=MOCK_TEXT),
        "tools": Scene("mock", says=MOCK_TEXT),  # it never calls one
        "image": Scene("mock", says=MOCK_TEXT),
        "embeddings": Scene("mock"),
        "stall": Scene("mock-slow"),
    },
}
#: What a backend says in place of an answer: about the request, and about its own state.
REFUSALS = {
    "openai": Error("gpt-long", 400, "This model's maximum context length is 7 tokens."),
    "anthropic": Error("claude-long", 400, "prompt is too long: 200001 tokens > 200000 maximum"),
    "ollama": Error("all-minilm", 400, '"all-minilm" does not support chat'),
}
BUSY = {
    "openai": Error("gpt-limited", 429, "Rate limit reached for requests", asks=2),
    "anthropic": Error("claude-overloaded", 529, "Overloaded", asks=2),
    "ollama": Error("llama3.2", 503, "server busy, please try again.", "busy", asks=2),
    "tgi": Error("tgi", 429, "Model is overloaded", asks=2, streamed=502),
    "mock": Error("mock-busy", 429, "The mock backend was told to fail."),
}
#: Streams that break off with an error; the message is the backend's own, or the gateway's about it.
BROKEN = {
    "openai": Error("gpt-broken", 0, "The model broke"),
    "anthropic": Error("claude-broken", 0, "Overloaded"),
    "ollama": Error("llama3.2", 0, "model runner has unexpectedly stopped", "fail midway"),
    "tgi": Error("tgi", 0, "Request failed during generation: Server error: CANCELLED"),
    "mock": Error("mock-cut", 0, "The upstream broke off its answer."),
}


def _part(request: Request, kind: str) -> Any:
    (part,) = [one for one in request.json()["messages"][-1]["content"] if one["type"] == kind]
    return part


#: The image that a backend was sent: base64, or a URL.
IMAGE_OF: dict[str, Callable[[Request], str]] = {
    "openai": lambda request: _part(request, "image_url")["image_url"]["url"],
    "anthropic": lambda request: _anthropic_source(_part(request, "image")["source"]),
    "ollama": lambda request: request.json()["messages"][-1]["images"][0],
    "tgi": lambda request: _part(request, "image_url")["image_url"]["url"],
}


def _anthropic_source(source: dict[str, str]) -> str:
    return source["url"] if source["type"] == "url" else f"data:{source['media_type']};base64,{source['data']}"


#: The schema that a backend was sent.
SCHEMA_OF: dict[str, Callable[[Request], Any]] = {
    "openai": lambda request: request.json()["response_format"]["json_schema"]["schema"],
    "anthropic": lambda request: request.json()["output_config"]["format"]["schema"],
    "ollama": lambda request: request.json()["format"],
    "tgi": lambda request: request.json()["response_format"]["value"]["schema"],
}
