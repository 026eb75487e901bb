"""POST /api/generate for Ollama's clients: its request in the hub's words, the hub's answers in its own.

Owns the body, and the answer and lines that go back. It refuses what `chat_client` refuses. Made by the gateway for a
call on a translated route. Source: docs/api.md and `api.GenerateRequest`, `api.GenerateResponse` of the server v0.33.

A prompt that the server would put into the model's template is a chat: `system` and one user message. With `raw`, or
with a `suffix` to write towards, it is a completion: no template, no images, no thinking, no `format`, as the hub has
none there. Where it sets no num_predict it asks for no limit, as in Ollama: the default of a completion, 16 tokens,
would end nearly every answer. `template` and `context` cannot be translated at all. An answer has no `context`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from protocols.dialect import Dropped, ErrorObject, JsonObject, Task, Unmappable
from protocols.ollama import fields, hub, options, request
from protocols.ollama.errors import error_line
from protocols.ollama.history import with_images
from protocols.ollama.json_text import encode, encode_line, one_line
from protocols.ollama.moments import rfc3339
from protocols.pieces import Malformed

_KNOWN: Final = request.COMMON | {
    *("prompt", "suffix", "system", "template", "context", "raw", "images", "_debug_render_only"),
}


_NAMES: Final[Mapping[str, str]] = {
    **options.NAMES,
    "messages": "prompt",
    "messages[].content[]": "images",
}


class GenerateClient:
    """A `ClientSide` for /api/generate; its task depends on the request."""

    names = _NAMES
    repeats_text = True

    def __init__(self, given: JsonObject, stream: bool, id: str, created: int, dropped: Dropped) -> None:
        raw = fields.flag(given.get("raw"), "raw")
        suffix = fields.optional_text(given.get("suffix"), "suffix")
        self.task = Task.COMPLETION if raw or suffix else Task.CHAT
        self.hub = self._translate(given, stream, dropped)
        self._model: str = self.hub["model"]
        self._created_at = rfc3339(created)
        self._begin = encode({"model": self._model, "created_at": self._created_at})[:-1] + b',"response":'
        self._ending = hub.Ending()

    def _translate(self, given: JsonObject, stream: bool, dropped: Dropped) -> JsonObject:
        asked = request.begin(given, stream, _KNOWN, dropped)
        prompt = fields.optional_text(given.get("prompt"), "prompt")
        if not prompt:
            raise Unmappable("'prompt' must not be empty: models are not loaded or unloaded on demand", "prompt")
        system = fields.optional_text(given.get("system"), "system")
        template = fields.optional_text(given.get("template"), "template")
        context = fields.array(given.get("context"), "context")
        if given.get("raw") is True:
            for name, value in (("template", template), ("system", system), ("context", context)):
                if value:
                    raise Unmappable(f"'{name}' has no place in raw mode", name)
        names = {"template": "", "context": [], "_debug_render_only": False}
        fields.refuse_set(given, names, dropped, "is only for a server of Ollama itself")
        if self.task is Task.CHAT:
            return asked | self._chat(given, prompt, system, dropped)
        return asked | self._completion(given, prompt, dropped)

    def _chat(self, given: JsonObject, prompt: str, system: str, dropped: Dropped) -> JsonObject:
        messages: list[JsonObject] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": with_images(prompt, given.get("images"), "images")})
        asked: JsonObject = {"messages": messages}
        asked |= options.to_hub(given.get("options"), "max_completion_tokens", dropped)
        form = request.response_format(given.get("format"))
        if form is not None:
            asked["response_format"] = form
        effort = request.reasoning_effort(given.get("think"))
        if effort is not None:
            asked["reasoning_effort"] = effort
        return asked | request.logprobs(given)

    def _completion(self, given: JsonObject, prompt: str, dropped: Dropped) -> JsonObject:
        asked: JsonObject = {"prompt": prompt}
        if given.get("suffix"):
            asked["suffix"] = given["suffix"]
        request.response_format(given.get("format"))
        request.reasoning_effort(given.get("think"))
        request.logprobs(given)
        fields.array(given.get("images"), "images")
        names = {"images": [], "format": "", "think": False, "logprobs": False, "system": ""}
        fields.refuse_set(given, names, dropped, "cannot be translated together with raw or suffix")
        return asked | {"max_tokens": None} | options.to_hub(given.get("options"), "max_tokens", dropped)

    def _texts(self, choice: JsonObject, key: str) -> tuple[str, str]:
        """The response and the thinking of an answer's choice, or of a chunk's."""
        if self.task is Task.COMPLETION:
            return hub.text(choice, "text"), ""
        message = hub.inner(choice, key)
        return hub.content(message), hub.text(message, "reasoning_content")

    def answer(self, answer: JsonObject) -> bytes:
        """A whole answer's body. Raises `Malformed`."""
        choice = self._ending.note(answer)
        if choice is None:
            raise Malformed("an answer has no choice")
        response, thinking = self._texts(choice, "message")
        body: JsonObject = {"model": self._model, "created_at": self._created_at, "response": response}
        if thinking:
            body["thinking"] = thinking
        body |= self._ending.members()
        logprobs = None if self.task is Task.COMPLETION else hub.logprobs(choice)
        return encode(body if logprobs is None else body | {"logprobs": logprobs})

    def feed(self, chunk: JsonObject) -> bytes:
        """The line that *chunk* becomes. Raises `Malformed`."""
        choice = self._ending.note(chunk)
        if choice is None:
            return b""
        response, thinking = self._texts(choice, "delta")
        logprobs = None if self.task is Task.COMPLETION else hub.logprobs(choice)
        if not (response or thinking or logprobs is not None):
            return b""
        parts = [self._begin, encode(response)]
        if thinking:
            parts += (b',"thinking":', encode(thinking))
        parts.append(b',"done":false')
        if logprobs is not None:
            parts += (b',"logprobs":', encode(logprobs))
        parts.append(b"}\n")
        return one_line(b"".join(parts))

    def end(self) -> bytes:
        """The last line. Raises `Malformed`."""
        last = {"model": self._model, "created_at": self._created_at, "response": ""}
        return encode_line(last | self._ending.members())

    def fail(self, error: ErrorObject) -> bytes:
        """The line of an error."""
        return error_line(error)
