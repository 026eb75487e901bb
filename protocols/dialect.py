"""Dialects: what a call says where client and backend speak different ones, and the hub between them.

Owns the faces of the two sides of a translated call, the values that cross between them, and what cannot be translated.
It refuses every dialect's own words (`protocols.openai`, `protocols.anthropic`, ...) and to choose sides (the gateway
does, once for a route). The hub is OpenAI: a `ClientSide` turns its dialect's requests into the hub's and the hub's
answers into its own; a `BackendSide` does the reverse. So a call from any dialect to any other composes two sides.

In the hub a request is the decoded JSON object of POST /v1/chat/completions, /v1/completions or /v1/embeddings
(`Task`), an answer the one that comes back, a stream its chunks, each one decoded. What other dialects have beyond
OpenAI's keeps these names there:

- `message.reasoning_content`, `delta.reasoning_content`: the text of reasoning (also DeepSeek's and llama.cpp's name).
- `message.thinking_blocks`, `delta.thinking_blocks`: Anthropic's thinking and redacted_thinking blocks as they came,
  with their signatures; in a stream one with an empty `thinking` tells the signature of the reasoning before it.
- `choice.stop_reason`: the text at which the model stopped, where the backend tells which (vLLM's name).
- `usage.prompt_tokens_details.cache_creation_tokens`: of the prompt's tokens those that were written to a cache.
- `embedding` of an answer is always numbers; a client that asked for base64 writes it so itself.
- `top_k`, `min_p`, `repetition_penalty` of a request: as vLLM and its kin call them.
- `max_tokens: null` of a completion's request: no limit, as vLLM takes it. Where the field is not there, the backend's
  own default holds, which is OpenAI's 16 almost everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

#: The indexes of a place; and where places end within which it lies.
_INDEX: Final = re.compile(r"\[([0-9]*)\]")
_BORDER: Final = re.compile(r"(?=[.\[])")
#: A decoded JSON object.
JsonObject = dict[str, Any]


class Task(Enum):
    """What is asked for, as the hub tells requests apart; the value is OpenAI's path."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"


#: More than any answer has. What claims more is nonsense, and is taken for no usage at all: sums of it would overflow.
TOKENS_LIMIT: Final = 1 << 40
Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_LIMIT)]


def are_tokens(*counts: int) -> bool:
    """Whether an answer can have so many tokens, each of *counts*, which are not negative."""
    return max(counts) <= TOKENS_LIMIT


class Usage(msgspec.Struct, gc=False):
    """Tokens of one call, as the backend counted them; *cached* are part of *prompt*."""

    prompt: int
    completion: int
    cached: int = 0


class ErrorObject(NamedTuple):
    """An error on its way to a client: an HTTP status, and the members of OpenAI's error object."""

    status: int
    message: str
    type: str = "server_error"
    code: str | None = None
    param: str | None = None


class Unmappable(ValueError):
    """A request cannot be said in the other dialect, or is none; `param` is the field, as its client knows it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def renamed(self, names: Mapping[str, str]) -> Unmappable:
        """The same of a field that the hub names, for a client that has other *names* (`ClientSide.names`)."""
        message, param = self.message, self.param
        if param is not None:
            param, is_whole = _renamed(param, names)
            message = message.replace(f"'{self.param}'", f"'{param}'" if is_whole else f"a part of '{param}'")
        return Unmappable(message[:1].upper() + message[1:], param)


def renamed(param: str, names: Mapping[str, str]) -> str:
    """*param*, a place in the hub's request, as a client with other *names* knows it: of what stands within a place
    that the names know, and is not known itself, that place alone.
    """
    return _renamed(param, names)[0]


def _renamed(param: str, names: Mapping[str, str]) -> tuple[str, bool]:
    """The client's name of *param*, and whether it is the whole of it."""
    shape = _INDEX.sub("[]", param)
    for end in (len(shape), *(border.start() for border in reversed([*_BORDER.finditer(shape)]))):
        name = names.get(shape[:end])
        if name is not None:
            for index in _INDEX.findall(param):
                name = name.replace("[]", f"[{index}]", 1)
            return name, end == len(shape)
    return param, True


class Broken(Exception):
    """An upstream's stream says itself that it failed; *before* as in `Malformed`."""

    before: Sequence[JsonObject] = ()

    def __init__(self, error: ErrorObject) -> None:
        super().__init__(error.message)
        self.error = error


class Dropped:
    """What of a request has no equivalent on the other side: refused, or left out and noted where that is *lenient*.

    Nothing is noted that does not change the answer (a default, a hint, a label): sides leave that out by themselves.
    """

    __slots__ = ("_noted", "fields", "lenient")

    def __init__(self, lenient: bool) -> None:
        self.lenient = lenient
        #: The fields that were left out, as the client knows them, each once.
        self.fields: list[str] = []
        self._noted: set[str] = set()  # a client may send a hundred thousand of them

    def leave_out(self, param: str, why: str) -> None:
        """Note that *param* is left out; *why* goes on from its name. Raises `Unmappable` where nothing may be."""
        if not self.lenient:
            raise Unmappable(f"'{param}' {why}", param)
        if param not in self._noted:
            self._noted.add(param)
            self.fields.append(param)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend's configuration says about how it is asked.

    *api_version*: Anthropic's, as the anthropic-version header says it. *max_tokens*: what is asked for where a client
    asks for nothing and the dialect wants a number, or where it asks for no limit and the dialect cannot say that.
    """

    api_version: str = "2023-06-01"
    max_tokens: int = 4096
    #: Chats are bounded by OpenAI's former word, which most compatible servers know alone and its own models refuse.
    says_max_tokens: bool = False
    #: `max_tokens: null` of a completion is no limit there; elsewhere it is the default, or refused.
    takes_no_limit: bool = False


class Ask(NamedTuple):
    """A request as a backend is to get it: path, body, and whole lines for its head."""

    path: bytes
    body: bytes
    lines: bytes = b""


#: Of a client that calls everything as the hub does.
SAME_NAMES: Final[Mapping[str, str]] = {}


class ClientSide(Protocol):
    """One call as its client speaks. Made from the request:

    `ClientSide(fields, stream, id, created, dropped)`: *fields* is the decoded body, *id* a unique id of the call (hex
    digits, for the ids that answers need) and *created* the time in Unix seconds. Raises `Unmappable`, with `param`,
    where a field is wrong or cannot be said in the hub's words.
    """

    task: Task
    #: The hub's names of fields, and what they are called by its clients, where that is something else. A place within
    #: a field has `[]` for each index; one in the client's name is the same index, from the first on.
    names: Mapping[str, str]
    #: A chunk of text leaves nothing behind here, and becomes the same as the last but for the text.
    repeats_text: bool
    #: The request in the hub's words, its `model` and `stream` as the client has them. Nobody changes it; it is let go
    #: of once nobody is to be asked any more.
    hub: JsonObject

    def answer(self, answer: JsonObject) -> bytes:
        """A whole answer's body."""

    def feed(self, chunk: JsonObject) -> bytes:
        """What one chunk of a stream becomes, framed; often nothing."""

    def end(self) -> bytes:
        """What a stream that is complete ends with, framed."""

    def fail(self, error: ErrorObject) -> bytes:
        """What a stream that broke ends with, framed: never what a complete one ends with."""


@runtime_checkable
class TextFeeder(Protocol):
    """A client's side for which each chunk of text is something else (`repeats_text` is False), and quickly said."""

    def feed_text(self, text: bytes) -> bytes:
        """What a chunk becomes that is nothing but *text*, a JSON string; the last chunk was such a one too.

        Raises `Malformed`.
        """


class BackendSide(Protocol):
    """One attempt's way of asking and hearing a backend. Made from the hub's request:

    `BackendSide(hub, stream, id, created, terms, dropped)`, with *id* and *created* as above. Raises `Unmappable`.
    """

    #: A chunk of text leaves nothing behind here.
    repeats_text: bool

    @property
    def is_over(self) -> bool:
        """Whether the stream said that it is over: nothing of it can follow, and `end` has no more to bring."""

    def ask(self, model: str) -> Ask:
        """The request, for *model* as the backend calls it."""

    def forget(self) -> None:
        """Nobody is to be asked any more: let go of the request, which may be large where the answer is long."""

    def answer(self, body: bytes) -> JsonObject:
        """A whole answer in the hub's words. Raises `Malformed`."""

    def error(self, status: int, body: bytes) -> ErrorObject:
        """An error that came in place of an answer; *body* may be anything."""

    def feed(self, payload: bytes) -> list[JsonObject]:
        """The hub's chunks in the next bytes of a stream, however they are cut.

        Raises `Malformed` and `Broken`, which have what came before them in the same bytes.
        """

    def end(self) -> list[JsonObject]:
        """The chunks that the stream's end brings. Raises `Malformed` where it ended before it said so."""


@runtime_checkable
class HeadReader(Protocol):
    """A backend's side whose whole answers tell their usage in their heads."""

    def usage_of_head(self, lines: Sequence[bytes]) -> JsonObject | None:
        """The hub's usage in *lines*, which together are those of an answer's head; their names are in lower case."""


class Form(Protocol):
    """Where the parts of a stream end, and what they carry: `protocols.sse` or `protocols.ndjson`."""

    def last_border(self, payload: bytes, /) -> int: ...
    def first_border(self, payload: bytes, /) -> int: ...
    def split_events(self, payload: bytes, /) -> list[bytes]: ...
    def data_of(self, event: bytes, /) -> bytes | None: ...
    def names_error(self, event: bytes, /) -> bool: ...


class Dialect(NamedTuple):
    """A dialect as the gateway needs it where bytes pass untouched, and where it speaks itself.

    *usage_key*: stands in every part of a stream that tells usage. *usage_of_event*: the usage after one part's data,
    given what was known before it. *is_opening*: whether a part's data is one that an answer begins with; what comes
    before it (a ping) proves nothing. *says_end*: whether some of a stream's last bytes say that it is over, well or
    not; *always_ends*: every stream that is whole says so. *frame_error*: an error as a part of a stream, by its data.
    """

    name: str
    stream_type: bytes
    form: Form
    error_body: Callable[[ErrorObject], bytes]
    error_event: Callable[[ErrorObject], bytes]
    frame_error: Callable[[bytes], bytes]
    carries_error: Callable[[bytes], bool]
    is_opening: Callable[[bytes], bool]
    says_end: Callable[[bytes], bool]
    always_ends: bool
    usage_key: bytes
    usage_of_event: Callable[[bytes, Usage | None], Usage | None]
    usage_of_answer: Callable[[bytes], Usage | None]
    #: The header field in which its clients look for the request's id, beside x-request-id; empty: there alone.
    id_field: bytes = b""
    #: Its servers take JSON whatever content-type calls it, and its users rely on that.
    any_content_type: bool = False
