"""A scripted server of Ollama's native API: it judges requests as the real one does, and answers by what they say.

Owns the models that it pretends to have, its judgement and its answers. It refuses sockets and records (`upstream`).
Made by tests: `stage.upstream(OllamaServer())`. Source: `ChatHandler`, `GenerateHandler`, `EmbedHandler` of the server
v0.33; `test_ollama_server` drives it with the official client.

What the last message (or the prompt) says decides: `say: TEXT` answers TEXT; `busy` is a full queue; `fail midway`
an error after the first line; `stop midway` a connection that ends there; `stall midway` one that waits there until
`gate` opens; `twice` calls the first tool two times; anything else is answered "Hello there". A tool is called
whenever there are tools and the last message is no tool's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec

from tests.wire import answers
from tests.wire.accepted import Gate
from tests.wire.upstream import Exchange

CREATED_AT = "2026-08-21T18:48:22.385406455Z"
NDJSON = ("content-type", "application/x-ndjson")
DURATIONS = {"total_duration": 4_883_583_458, "load_duration": 1_334_875}


class _Given(msgspec.Struct, kw_only=True):
    """A field that is null is as absent, as in Go; an unknown one is not looked at."""

    model: str | None = None
    keep_alive: float | str | None = None
    options: dict[str, Any] | None = None
    truncate: bool | None = None


class _Function(msgspec.Struct):
    name: str = ""
    arguments: dict[str, Any] | None = None
    index: int | None = None


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: str = ""
    content: str | None = None
    thinking: str | None = None
    images: list[bytes] | None = None  # from base64, as Go's
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Parameters(msgspec.Struct):
    type: str | None = None
    required: list[str] | None = None
    properties: dict[str, dict[str, Any]] | None = None


class _ToolFunction(msgspec.Struct):
    name: str = ""
    description: str | None = None
    parameters: _Parameters | None = None


class _Tool(msgspec.Struct):
    type: str | None = None
    function: _ToolFunction = msgspec.field(default_factory=_ToolFunction)


class _Prompted(_Given, kw_only=True):
    stream: bool | None = None
    format: Any = None
    think: Any = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None


class _Chat(_Prompted, kw_only=True):
    messages: list[_Message] | None = None
    tools: list[_Tool] | None = None


class _Generate(_Prompted, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[bytes] | None = None


class _Embed(_Given, kw_only=True):
    input: str | list[str] | None = None
    dimensions: int | None = None


#: Options by the type that `Options.FromMap` wants; others are ignored with a warning.
_INTEGERS = ("num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_ctx", "num_batch", "num_gpu")
_FLOATS = ("top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty")


class Refused(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text


class OllamaServer:
    """The script of every path. `models` maps names to what they can do; `gate` ends a stall."""

    def __init__(self) -> None:
        self.models: dict[str, frozenset[str]] = {
            "llama3.2": frozenset({"completion", "tools"}),
            "qwen3": frozenset({"completion", "tools", "thinking"}),
            "llava": frozenset({"completion", "vision"}),
            "all-minilm": frozenset({"embedding"}),
        }
        self.gate = Gate()
        self._paths: dict[tuple[str, str], Callable[[Exchange], None]] = {
            ("GET", "/"): self._running,
            ("HEAD", "/"): self._running,
            ("GET", "/api/version"): lambda x: answers.whole(200, b'{"version":"0.33.0"}')(x),
            ("GET", "/api/tags"): self._tags,
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/embed"): self._embed,
            ("GET", "/v1/models"): lambda x: answers.models(*self.models)(x),
            ("POST", "/v1/chat/completions"): answers.model_server,
        }

    def __call__(self, x: Exchange) -> None:
        answer = self._paths.get((x.request.method, x.request.target.partition("?")[0]))
        if answer is None:
            return answers.whole(404, b"404 page not found", type="text/plain")(x)
        try:
            answer(x)
        except Refused as error:
            answers.whole(error.status, answers.json_body({"error": error.text}))(x)

    def _running(self, x: Exchange) -> None:
        answers.whole(200, b"Ollama is running", type="text/plain; charset=utf-8")(x)

    def _tags(self, x: Exchange) -> None:
        details = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
        details |= {"parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        entries = [
            {"name": name, "model": name, "modified_at": CREATED_AT, "size": 2_019_393_189, "digest": f"{at:064x}"}
            | {"details": details, "capabilities": sorted(able)}
            for at, (name, able) in enumerate(self.models.items())
        ]
        answers.whole(200, answers.json_body({"models": entries}))(x)

    def _chat(self, x: Exchange) -> None:
        given = decode(x.request.body, _Chat)
        if not given.model:
            raise Refused(400, "model is required")
        able = self._able(given, "chat")
        if given.tools and "tools" not in able:
            raise Refused(400, f'"{given.model}" does not support tools')
        messages = given.messages or []
        if any(message.role.lower() not in ("system", "user", "assistant", "tool") for message in messages):
            raise Refused(500, "unknown role")
        if any(message.images for message in messages) and "vision" not in able:
            raise Refused(500, "this model is missing data required for image input")
        if not messages:
            return loaded(x, given, {"message": {"role": "assistant", "content": ""}})
        last = messages[-1]
        thinking = ["Let me", " think."] if "thinking" in able and given.think is not False else []
        texts = [text for message in messages if (text := message.content)]
        self._answer(x, given, Said(given, texts, last, thinking), "message")

    def _generate(self, x: Exchange) -> None:
        given = decode(x.request.body, _Generate)
        able = self._able(given, "generate")
        if given.raw and (given.template or given.system or given.context):
            raise Refused(400, "raw mode does not support template, system, or context")
        if not given.prompt:
            return loaded(x, given, {"response": ""})
        if given.suffix and "insert" not in able:
            raise Refused(400, f'"{given.model}" does not support insert')
        thinking = ["Hm", "."] if "thinking" in able and given.think is not False else []
        last = _Message("user", given.prompt, images=given.images)
        texts = [text for text in (given.system, given.prompt) if text]
        self._answer(x, given, Said(given, texts, last, thinking), "response")

    def _embed(self, x: Exchange) -> None:
        given = decode(x.request.body, _Embed)
        self._known(given)
        inputs = [given.input] if isinstance(given.input, str) else given.input or []
        inputs = [text for text in inputs if text] if isinstance(given.input, str) else inputs
        if not inputs:
            return answers.whole(200, answers.json_body({"model": given.model, "embeddings": []}))(x)
        if "busy" in inputs:
            raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
        vectors = [[1.0 / (len(text) + at) for at in range(1, 5)][: given.dimensions or None] for text in inputs]
        count = sum(len(text.split()) for text in inputs)
        body = {"model": given.model, "embeddings": vectors, **DURATIONS, "prompt_eval_count": count}
        answers.whole(200, answers.json_body(body))(x)

    def _known(self, given: _Given) -> frozenset[str]:
        able = self.models.get((given.model or "").removesuffix(":latest"))
        if able is None:
            raise Refused(404, f"model '{given.model or ''}' not found")
        return able

    def _able(self, given: _Prompted, what: str) -> frozenset[str]:
        """What the model can do; refused where the request wants more."""
        able = self._known(given)
        if "completion" not in able:
            raise Refused(400, f'"{given.model}" does not support {what}')
        if given.think not in (None, True, False, "low", "medium", "high", "max"):
            raise Refused(400, f"invalid think value: {given.think!r}")
        if given.think and "thinking" not in able:
            raise Refused(400, f'"{given.model}" does not support thinking')
        if not (given.format in (None, "", "json") or isinstance(given.format, dict)):
            raise Refused(400, f'invalid format: {given.format!r}; expected "json" or a valid JSON Schema object')
        return able

    def _answer(self, x: Exchange, given: _Prompted, said: Said, key: str) -> None:
        if said.asked == "busy":
            raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
        parts = [{"model": given.model, "created_at": CREATED_AT, **part} for part in said.parts(key)]
        if given.stream is False:
            if said.asked == "fail midway":
                raise Refused(500, "model runner has unexpectedly stopped")
            return answers.whole(200, answers.json_body(joined(parts, key)), type="application/json; charset=utf-8")(x)
        lines = [answers.chunk(answers.json_body(part) + b"\n") for part in parts]
        x.send(answers.head(200, NDJSON, ("transfer-encoding", "chunked")) + lines[0])
        if said.asked == "fail midway":
            error = answers.json_body({"error": "model runner has unexpectedly stopped"})
            return x.send(answers.chunk(error + b"\n") + answers.LAST_CHUNK)
        if said.asked == "stop midway":
            return x.close()
        if said.asked == "stall midway":
            x.stall(self.gate)
        for line in lines[1:]:
            x.send(line)
        x.send(answers.LAST_CHUNK)


def decode(body: bytes, type: type[Any]) -> Any:
    """*body* as the server binds it. Raises `Refused`."""
    if not body:
        raise Refused(400, "missing request body")
    try:
        given = msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        raise Refused(400, f"json: cannot unmarshal: {error}") from None
    except msgspec.DecodeError as error:
        raise Refused(400, f"invalid JSON: {error}") from None
    for name, value in (given.options or {}).items():
        wanted = float | int if name in (*_INTEGERS, *_FLOATS) else list if name == "stop" else object
        if value is not None and (isinstance(value, bool) or not isinstance(value, wanted)) and wanted is not object:
            raise Refused(500, f'option "{name}" must be of another type')
    return given


def loaded(x: Exchange, given: _Prompted, empty: dict[str, Any]) -> None:
    """The answer where there is nothing to answer: the model was loaded, or thrown out."""
    reason = "unload" if given.keep_alive == 0 else "load"
    body = {"model": given.model, "created_at": CREATED_AT, **empty, "done": True, "done_reason": reason}
    answers.whole(200, answers.json_body(body))(x)


def joined(parts: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """A whole answer: what the lines of a stream say together."""
    whole = dict(parts[-1])
    texts = [part["message"] | {"response": part["message"]["content"]} if key == "message" else part for part in parts]
    text, thinking = ("".join(one.get(name, "") for one in texts) for name in ("response", "thinking"))
    calls = [call for one in texts for call in one.get("tool_calls", [])]
    more = ({"thinking": thinking} if thinking else {}) | ({"tool_calls": calls} if calls else {})
    logprobs = [token for part in parts for token in part.get("logprobs", [])]
    if logprobs:
        whole["logprobs"] = logprobs
    if key == "message":
        return whole | {"message": {"role": "assistant", "content": text, **more}}
    return whole | {"response": text, **more}


class Said:
    """What a model says to a request, in pieces."""

    def __init__(self, given: _Prompted, texts: list[str], last: _Message, thinking: list[str]) -> None:
        self.asked = last.content or ""
        self._given = given
        self._last = last
        self._thinking = thinking
        self._prompted = sum(len(text.split()) for text in texts)
        self._options = given.options or {}

    def parts(self, key: str) -> Iterator[dict[str, Any]]:
        """The lines of a stream, but for what all have: text under *key*, or a message there."""
        tools = self._given.tools if isinstance(self._given, _Chat) else None
        if tools and self._last.role.lower() != "tool":
            words, calls = [], [call_of(tools[0], at) for at in range(2 if self.asked == "twice" else 1)]
        else:
            words, calls = re.findall(r"\s*\S+\s*?", self._text()), []
        limit = self._options.get("num_predict") or -1
        cut = 0 < limit < len(words)
        words = words[:limit] if cut else words
        for text in self._thinking:
            yield piece(key, "", thinking=text)
        for word in words:
            logprob = {"token": word, "logprob": -0.5, "bytes": list(word.encode())}
            yield piece(key, word) | ({"logprobs": [logprob]} if self._given.logprobs else {})
        for call in calls:
            yield piece(key, "", tool_calls=[call])
        counts = {"prompt_eval_count": self._prompted, "prompt_eval_duration": 342_546_000}
        counts |= {"eval_count": len(words) + len(calls), "eval_duration": 453_559_900}
        reason = {"done": True, "done_reason": "length" if cut else "stop"}
        yield piece(key, "") | reason | DURATIONS | {name: count for name, count in counts.items() if count}

    def _text(self) -> str:
        images = self._last.images or []
        if isinstance(self._given.format, dict):
            return answers.json_body(example_of(self._given.format)).decode()
        if self._given.format == "json":
            return '{"answer": "yes"}'
        if self._last.role.lower() == "tool":
            return f"{self._last.tool_name or 'The tool'} said {self.asked}"
        if images:
            return f"I see {len(images)} image of {len(images[0])} bytes"
        text = self.asked.partition("say: ")[2] or "Hello there"
        for stop in self._options.get("stop") or []:
            text = text.partition(stop)[0]
        return text


def piece(key: str, text: str, **more: Any) -> dict[str, Any]:
    if key == "message":
        return {"message": {"role": "assistant", "content": text, **more}, "done": False}
    return {"response": text, **more, "done": False}


def call_of(tool: _Tool, index: int) -> dict[str, Any]:
    """A call of *tool* with something for each of its properties."""
    parameters = tool.function.parameters
    properties = (parameters.properties if parameters else None) or {}
    arguments = {name: example_of(schema) for name, schema in properties.items()}
    function = {"index": index, "name": tool.function.name, "arguments": arguments}
    return {"id": f"call_{index:08}", "function": function}


def example_of(schema: dict[str, Any]) -> Any:
    """A value that fits *schema*."""
    if schema.get("type") == "object":
        return {name: example_of(inner) for name, inner in schema.get("properties", {}).items()}
    return {"integer": 7, "number": 7.5, "boolean": True, "array": []}.get(schema.get("type", ""), "Köln")
