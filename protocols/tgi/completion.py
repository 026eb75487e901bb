"""OpenAI's completions over TGI's native API: POST /generate, and /generate_stream for a stream.

Owns both directions of that translation. It refuses chat (`chat`) and other tasks, which the native API has no words
for. A CompletionBackend is made by the gateway for each attempt.

`decoder_input_details` is asked for in whole answers, as TGI's own /v1/completions does: the tokens of the prompt are
counted there and nowhere else in the body. From 3.0 on the server ignores it unless it was started with
REQUEST_LOGPROBS=1, and then only the answer's head has the counts (`usage_of_head`), if no proxy took them away; where
it is heeded it costs the logits of the whole prompt. A stream tells the count for nothing (`input_length`), and would
be refused with the option.
Source: GenerateParameters, generate_internal, generate_stream_internal (router/src/lib.rs, server.rs).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocols.dialect import Ask, Broken, Dropped, ErrorObject, JsonObject, Terms, Unmappable, are_tokens
from protocols.pieces import Malformed
from protocols.tgi import errors
from protocols.tgi.fields import Count, encode, flag, integer, leave_out_rest, number, seed, stops
from protocols.tgi.stops import StopText, cut
from protocols.tgi.stream import EventStream

#: What OpenAI generates where nothing is said; TGI would fill its context.
_MAX_TOKENS: Final = 16
#: max_top_n_tokens where TGI was started with none, and OpenAI's limit.
_TOP_LIMIT: Final = 5
_KNOWN: Final = frozenset(
    {
        *("prompt", "max_tokens", "temperature", "top_p", "top_k", "typical_p", "seed", "stop", "echo", "best_of"),
        *("frequency_penalty", "repetition_penalty", "logprobs"),
    }
)
FINISHES: Final = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}


class _Token(msgspec.Struct, gc=False):
    text: str
    special: bool = False
    logprob: float | None = None


class _Details(msgspec.Struct):
    """Of a whole answer, and of a stream's last event; each has what the other lacks."""

    finish_reason: str
    generated_tokens: Count
    input_length: Count | None = None
    prefill: list[msgspec.Raw] = []
    tokens: list[_Token] = []
    top_tokens: list[list[_Token]] | None = None


class _Answer(msgspec.Struct):
    generated_text: str
    details: _Details


class _Event(msgspec.Struct):
    token: _Token | None = None
    top_tokens: list[_Token] | None = None
    generated_text: str | None = None
    details: _Details | None = None
    error: str | None = None
    error_type: str | None = None


#: `generate_internal` of router/src/server.rs writes them.
_COUNTED: Final = re.compile(rb"(?:\A|\n)x-(prompt|generated)-tokens:[ \t]*([0-9]{1,20})[ \t]*\r")
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


class CompletionBackend(EventStream):
    """One attempt at /v1/completions, said in TGI's own words. A BackendSide."""

    repeats_text = False

    def __init__(self, hub: JsonObject, stream: bool, id: str, created: int, terms: Terms, dropped: Dropped) -> None:
        # the request
        self._stream = stream
        self._prompt = _prompt(hub)
        self._echo = flag(hub, "echo")
        self._top = integer(hub, "logprobs", 0, _TOP_LIMIT)
        self._stops = stops(hub)
        if self._echo and self._top is not None:
            dropped.leave_out("logprobs", "of an echoed prompt have no equivalent in Text Generation Inference")
            self._top = None
        self._inputs = encode(self._prompt)
        self._parameters = encode(self._read_parameters(hub, dropped))[1:]
        leave_out_rest(hub, _KNOWN, dropped)
        # every chunk's, and the whole answer's
        self._base: JsonObject = {"id": f"cmpl-{id}", "object": "text_completion", "created": created, "model": ""}
        # the stream's progress
        super().__init__()
        self._held = StopText(self._stops) if self._stops else None
        self._offset = 0
        self._begun = False

    def _read_parameters(self, hub: JsonObject, dropped: Dropped) -> JsonObject:
        temperature, top_p = number(hub, "temperature", 0), number(hub, "top_p", 0, 1)
        # Both name the likeliest token alone, and TGI takes neither 0.
        greedy = temperature == 0 or top_p == 0
        top_k, typical_p = integer(hub, "top_k", -1, 2**31 - 1), number(hub, "typical_p", 0, 1)
        penalty = number(hub, "repetition_penalty", 0)
        told = {
            "max_new_tokens": integer(hub, "max_tokens", 1) or (_MAX_TOKENS if "max_tokens" not in hub else None),
            "seed": seed(hub),
            "frequency_penalty": number(hub, "frequency_penalty", -2, 2),
            "repetition_penalty": penalty if penalty != 1 else None,
            "stop": self._stops or None,
            "top_n_tokens": self._top or None,
        }
        if not greedy:
            told |= {
                "temperature": temperature,
                "top_p": top_p if top_p != 1 else None,
                "top_k": top_k if top_k is not None and top_k > 0 else None,
                "typical_p": typical_p if typical_p != 1 else None,
                "best_of": self._best_of(hub, dropped),
            }
            if told["best_of"] and told["seed"] is not None:
                dropped.leave_out("seed", "cannot be joined with best_of in Text Generation Inference")
                told["seed"] = None
        parameters = {name: value for name, value in told.items() if value is not None}
        # Where parameters are given at all, nothing is sampled unless they say so.
        parameters |= {"do_sample": not greedy, "details": True}
        if not self._stream:
            parameters |= {"decoder_input_details": True, "return_full_text": self._echo}
        return parameters

    def _best_of(self, hub: JsonObject, dropped: Dropped) -> int | None:
        best_of = integer(hub, "best_of", 1)
        if best_of is None or best_of == 1:
            return None
        if self._stream:
            dropped.leave_out("best_of", "has no equivalent in a stream of Text Generation Inference")
            return None
        return best_of

    def ask(self, model: str) -> Ask:
        """The request. *model* is an adapter's name to TGI, as in its own /v1; one that it does not know is the model
        itself, and `tgi` always is."""
        self._base["model"] = model
        adapter = b'"adapter_id":%s,' % encode(model) if model not in ("", "tgi") else b""
        body = b'{"inputs":%s,"parameters":{%s%s}' % (self._inputs, adapter, self._parameters)
        return Ask(b"/generate_stream" if self._stream else b"/generate", body)

    def forget(self) -> None:
        self._inputs = self._parameters = b""
        if not self._echo:
            self._prompt = ""

    def answer(self, body: bytes) -> JsonObject:
        """A whole answer as a completion. Raises `Malformed`."""
        try:
            found = _decode_answer(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Malformed("the answer is none of /generate") from None
        details, text, stop = found.details, found.generated_text, None
        if details.finish_reason == "stop_sequence":
            text, stop = cut(text, self._stops)
        logprobs = None
        if self._top is not None:
            logprobs = _logprobs(details.tokens, details.top_tokens if self._top else None, 0, len(text))
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": _finish(details)}
        if stop is not None:
            choice["stop_reason"] = stop
        answer = self._base | {"choices": [choice]}
        if details.prefill and are_tokens(details.generated_tokens):
            answer["usage"] = _usage(len(details.prefill), details.generated_tokens)
        return answer

    def usage_of_head(self, lines: Sequence[bytes]) -> JsonObject | None:
        """See `HeadReader`: a body has no count of the prompt, unless it repeats it."""
        found = dict(_COUNTED.findall(b"".join(lines)))
        if len(found) < 2:
            return None
        prompt, completion = int(found[b"prompt"]), int(found[b"generated"])
        return _usage(prompt, completion) if are_tokens(prompt, completion) else None

    def error(self, status: int, body: bytes) -> ErrorObject:
        return errors.read_error(status, body)

    def _close(self) -> None:
        if not self._ended:
            raise Malformed("the stream ended before its generated_text")

    def _read(self, data: bytes, chunks: list[JsonObject]) -> None:
        if data == b"[DONE]" and self._ended:  # TGI sends none; what imitates it may
            return
        try:
            event = _decode_event(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Malformed("an event is none of /generate_stream") from None
        if event.error is not None:
            raise Broken(errors.event_error(event.error, event.error_type or ""))
        token = event.token
        if token is None or self._ended:
            raise Malformed("an event has no token" if token is None else "an event follows the last one")
        text = "" if token.special else token.text
        logprobs = None
        if self._top is not None and not token.special:
            logprobs = _logprobs([token], [event.top_tokens or []] if self._top else None, self._offset, None)
            self._offset += len(text)
        if self._held is not None:
            text = self._held.feed(text)
        if self._echo and not self._begun:
            text = self._prompt + text
        self._begun = True
        if event.generated_text is not None:
            self._last(event, text, logprobs, chunks)
        elif text or logprobs is not None:
            chunks.append(self._chunk(text, logprobs, None))

    def _last(self, event: _Event, text: str, logprobs: JsonObject | None, chunks: list[JsonObject]) -> None:
        details, stop = event.details, None
        if details is None:
            raise Malformed("the last event has no details")
        if self._held is not None:
            rest, stop = self._held.end(details.finish_reason == "stop_sequence")
            text += rest
        chunk = self._chunk(text, logprobs, _finish(details))
        if stop is not None:
            chunk["choices"][0]["stop_reason"] = stop
        chunks.append(chunk)
        if details.input_length is not None and are_tokens(details.input_length, details.generated_tokens):
            usage = _usage(details.input_length, details.generated_tokens)
            chunks.append(self._base | {"choices": [], "usage": usage})
        self._ended = True

    def _chunk(self, text: str, logprobs: JsonObject | None, finish: str | None) -> JsonObject:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return {**self._base, "choices": [choice]}


def _prompt(hub: JsonObject) -> str:
    prompt = hub.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt:
        several = isinstance(prompt[0], str)
        raise Unmappable(
            "'prompt' must be one text: Text Generation Inference takes " + ("no list" if several else "no token ids"),
            "prompt",
        )
    raise Unmappable("'prompt' must be a text that is not empty", "prompt")


def _finish(details: _Details) -> str:
    finish = FINISHES.get(details.finish_reason)
    if finish is None:
        raise Malformed("the finish_reason is none of Text Generation Inference's")
    return finish


def _usage(prompt: int, completion: int) -> JsonObject:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _logprobs(tokens: list[_Token], top: list[list[_Token]] | None, offset: int, end: int | None) -> JsonObject:
    """OpenAI's four lists over *tokens* but the special ones, the first at *offset*, and none from *end* on."""
    texts: list[str] = []
    own: list[float | None] = []
    tops: list[dict[str, float | None]] = []
    offsets: list[int] = []
    for at, token in enumerate(tokens):
        if token.special:
            continue
        if end is not None and offset >= end:
            break
        texts.append(token.text)
        own.append(token.logprob)
        offsets.append(offset)
        offset += len(token.text)
        if top is not None:
            others = top[at] if at < len(top) else []
            tops.append({other.text: other.logprob for other in others} | {token.text: token.logprob})
    lists: dict[str, Any] = {"tokens": texts, "token_logprobs": own, "top_logprobs": None, "text_offset": offsets}
    if top is not None:
        lists["top_logprobs"] = tops
    return lists
