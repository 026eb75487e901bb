"""What each protocol word of the configuration means: whom it makes a backend out to be.

Owns the table. It refuses to speak to anybody (`gateway.upstream`) and the dialects' words (`protocols`). Read by
`gateway.upstreams`, and by `gateway.cli` to tell what a backend can never be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from gateway.config import schema
from gateway.config.urls import parse
from gateway.routing.endpoints import INFERENCE
from gateway.routing.speech import SideMaker, Speech
from protocols.anthropic.backend_side import MessagesBackend
from protocols.anthropic.models import LIST_TARGET
from protocols.anthropic.models import parse_models as parse_anthropic_models
from protocols.dialect import Task, Terms
from protocols.ollama import chat_backend, completion_backend, embeddings_backend
from protocols.ollama.models import parse_models as parse_tags
from protocols.openai.backend import ChatBackend, CompletionBackend, EmbeddingsBackend
from protocols.openai.models import parse_models
from protocols.tgi import chat as tgi_chat
from protocols.tgi import completion as tgi_completion

_OPENAI_SIDES: Final[Mapping[Task, SideMaker]] = {
    Task.CHAT: ChatBackend,
    Task.COMPLETION: CompletionBackend,
    Task.EMBEDDINGS: EmbeddingsBackend,
}
_OLLAMA_SIDES: Final[Mapping[Task, SideMaker]] = {
    Task.CHAT: chat_backend.ChatBackend,
    Task.COMPLETION: completion_backend.CompletionBackend,
    Task.EMBEDDINGS: embeddings_backend.EmbeddingsBackend,
}
_TGI_SIDES: Final[Mapping[Task, SideMaker]] = {
    Task.CHAT: tgi_chat.ChatBackend,
    Task.COMPLETION: tgi_completion.CompletionBackend,
}
#: Doors of OpenAI's API.
_CHAT, _COMPLETIONS, _EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_AUDIO: Final = ("/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations")
_IMAGES: Final = ("/v1/images/generations", "/v1/images/edits", "/v1/images/variations")
_OPENAI: Final = (
    *(_CHAT, _COMPLETIONS, _EMBEDDINGS, "/v1/responses", "/v1/moderations", "/v1/rerank"),
    *(*_IMAGES, *_AUDIO),
)
_COUNT: Final = "/v1/messages/count_tokens"
_OLLAMA: Final = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")

#: What `capabilities` may say, where it is another word for the same.
_SAME: Final = {"generate": "completion", "generate_stream": "completion"}


#: Kinds of calls that can be translated.
_TASKS: Final = {"chat": Task.CHAT, "completion": Task.COMPLETION, "embeddings": Task.EMBEDDINGS}


class Preset(NamedTuple):
    """*native*: doors that such a server answers itself. *health*: what it is asked to see whether it is well, where
    the configuration does not say. *models*: where it lists its models. *busy*: statuses, beside the usual ones, that
    are about its state and not about the request. *takes_no_limit*: as in `Terms`.
    """

    native: tuple[str, ...]
    sides: Mapping[Task, SideMaker] = _OPENAI_SIDES
    health: str = "/v1/models"
    models: str = "/v1/models"
    parse_models: Callable[[bytes], tuple[str, ...]] = parse_models
    busy: tuple[int, ...] = ()
    takes_no_limit: bool = False


#: Sources: WIRE facts of each vendor's page; a server that answers a door in a way that official clients cannot read
#: (llama.cpp's stream of responses) is not native there, and is asked for its chat instead.
PRESETS: Final[Mapping[str, Preset]] = {
    "openai": Preset(_OPENAI),
    "together": Preset((_CHAT, _COMPLETIONS, _EMBEDDINGS, "/v1/rerank", *_IMAGES, *_AUDIO)),
    "groq": Preset((_CHAT, _EMBEDDINGS, *_AUDIO), busy=(498,)),
    "vllm": Preset((*_OPENAI, _COUNT), health="/health", takes_no_limit=True),
    "llamacpp": Preset(
        (_CHAT, _COMPLETIONS, _EMBEDDINGS, "/v1/rerank", _COUNT),
        health="/health",
        takes_no_limit=True,
    ),
    "sglang": Preset((_CHAT, _COMPLETIONS, _EMBEDDINGS, "/v1/rerank"), health="/health"),
    "tgi": Preset((), _TGI_SIDES, health="/health", busy=(424,)),
    "anthropic": Preset(
        ("/v1/messages", _COUNT),
        {Task.CHAT: MessagesBackend},
        models=LIST_TARGET.decode("ascii"),
        parse_models=parse_anthropic_models,
        busy=(529,),
    ),
    "ollama": Preset(_OLLAMA, _OLLAMA_SIDES, health="/api/version", models="/api/tags", parse_models=parse_tags),
    "mock": Preset(_OPENAI),
    "litellm": Preset((_CHAT, _COMPLETIONS, _EMBEDDINGS)),
}


def speech_of(backend: schema.Backend) -> Speech:
    """How *backend* is spoken to."""
    preset = PRESETS[backend.protocol]
    listed = set(backend.native or preset.native)
    kinds = set(map(kind_of, backend.capabilities))
    able = frozenset(door for door in INFERENCE if not kinds or door.capability in kinds)
    return Speech(
        family=schema.family_of(backend),
        native=frozenset(door for door in able if door.path in listed),
        able=able,
        sides=_sides(preset, listed),
        terms=Terms(
            api_version=backend.api_version,
            max_tokens=backend.max_tokens,
            says_max_tokens=not all(map(_is_openai, backend.endpoints)),
            takes_no_limit=preset.takes_no_limit,
        ),
        lines=_lines(backend),
    )


def _is_openai(endpoint: str | schema.Endpoint) -> bool:
    """Whether it is OpenAI's own, or Azure's: they know no former words."""
    host = parse(endpoint if isinstance(endpoint, str) else endpoint.url).host
    return host.endswith((".openai.com", ".azure.com"))


def _sides(preset: Preset, listed: set[str]) -> Mapping[Task, SideMaker]:
    """How it is asked: a server of OpenAI's API by those of its doors that it has itself."""
    if preset.sides is not _OPENAI_SIDES:
        return preset.sides
    return {task: side for task, side in preset.sides.items() if task.value in listed}


def kinds_of(backend: schema.Backend) -> list[str]:
    """What *backend* can be asked for, as `capabilities` calls it: by its own paths and by the sides of its dialect."""
    preset = PRESETS[backend.protocol]
    listed = set(backend.native or preset.native)
    translated = [kind for kind, task in _TASKS.items() if task in _sides(preset, listed)]
    return list(dict.fromkeys(translated + [door.capability for door in INFERENCE if door.path in listed]))


def kind_of(word: str) -> str:
    """The kind of calls that *word* of `capabilities` means."""
    return _SAME.get(word, word)


def _lines(backend: schema.Backend) -> Mapping[bytes, bytes]:
    """Lines that every request to *backend* must have, by the field's name (Anthropic, "Versions")."""
    if backend.protocol != "anthropic":
        return {}
    return {b"anthropic-version": b"anthropic-version: " + backend.api_version.encode("ascii") + b"\r\n"}
