"""A scripted Text Generation Inference: its routes and its words; the model's are given.

Owns what the real server answers. It refuses what may be asked (`tgi_shapes`), sockets (`upstream`) and expectations
(the tests). `TgiServer.serve` is a script of `Upstream`; `test_tgi_server` holds it against Hugging Face's own client.
Source: router/src/{server,infer,chat}.rs of text-generation-inference 3.3.7. Tokens are words here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.wire import answers
from tests.wire.tgi_shapes import (
    MAX_INPUT,
    MAX_STOPS,
    MAX_TOTAL,
    Chat,
    Common,
    Completion,
    Generate,
    Message,
    Parameters,
    Refused,
    Tool,
    check_chat,
    prompt_tokens,
    read,
    validate,
)
from tests.wire.upstream import Exchange

MODEL = "org/model-1b"
FINGERPRINT = "3.3.7-native"


class TgiServer:
    """One server; its attributes may be changed between requests.

    *text*: what the model says. *arguments*: those of a call to the first tool (or the one asked for); None: no call.
    *overloaded*, *healthy*: what it says. *breaks_after*: so many tokens on, generation fails. *space*: between `data:`
    and the data, as newer builds write it. *request_logprobs*: whether prompts are counted in details.
    """

    def __init__(self, text: str = " Deep learning is a subset") -> None:
        self.text = text
        self.arguments: dict[str, Any] | None = None
        self.overloaded = False
        self.healthy = True
        self.breaks_after: int | None = None
        self.space = True
        self.request_logprobs = False

    def serve(self, x: Exchange) -> None:
        """The script of every path."""
        path = x.request.target.partition("?")[0]
        routes = {
            ("POST", "/"): self._compatible,
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("GET", "/info"): self._info,
            ("GET", "/health"): self._health,
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): self._metrics,
        }
        try:
            route = routes.get((x.request.method, path))
            if route is None:
                raise Refused(405 if any(path == known for _, known in routes) else 404, "")
            route(x)
        except Refused as refusal:
            error = {"error": refusal.message, "error_type": refusal.type}
            if refusal.type:
                answers.whole(refusal.status, answers.json_body(error))(x)
            else:
                answers.whole(refusal.status, refusal.message.encode(), type="text/plain; charset=utf-8")(x)

    # what is generated

    def _validate(self, asked: Generate, streams: bool) -> None:
        if self.overloaded:
            raise Refused(429, "Model is overloaded", "overloaded")
        validate(asked, streams)

    def _tokens(self, asked: Generate, text: str) -> Iterator[dict[str, Any]]:
        """The events of one generation, the last with everything."""
        p = asked.parameters
        said, limit = "", p.max_new_tokens if p.max_new_tokens is not None else MAX_TOTAL
        words = [(word, False) for word in re.findall(r"\s*\S+|\s+$", text)] + [("</s>", True)]
        for number, (word, special) in enumerate(words, 1):
            if self.breaks_after is not None and number > self.breaks_after:
                raise Refused(424, "Request failed during generation: Server error: CANCELLED", "generation")
            said += "" if special else word
            finish = "length" if number >= limit else "eos_token" if special else None
            if finish is None and any(re.search(f"{re.escape(stop)}$", said) for stop in p.stop):
                finish = "stop_sequence"
            token = {"id": number, "text": word, "logprob": -0.25 * number, "special": special}
            event: dict[str, Any] = {"index": number, "token": token}
            if p.top_n_tokens:
                event["top_tokens"] = [token]
            event |= {"generated_text": None, "details": None}
            if finish is not None:
                seed = p.seed if p.seed is not None else 42 if p.do_sample else None
                event["generated_text"] = (asked.inputs if p.return_full_text else "") + said
                event["details"] = {"finish_reason": finish, "generated_tokens": number, "seed": seed}
                event["details"]["input_length"] = prompt_tokens(asked.inputs)
            yield event
            if finish is not None:
                return

    def _whole(self, asked: Generate, text: str) -> dict[str, Any]:
        """A whole generation with all its details."""
        self._validate(asked, streams=False)
        events = list(self._tokens(asked, text))
        details = events[-1]["details"]
        told = {name: details[name] for name in ("finish_reason", "generated_tokens", "seed")} | {"prefill": []}
        if asked.parameters.decoder_input_details and self.request_logprobs:
            none = {"id": 1, "text": "x", "logprob": None}
            told["prefill"] = [none] * details["input_length"]
        told["tokens"] = [event["token"] for event in events]
        if asked.parameters.top_n_tokens:
            told["top_tokens"] = [event["top_tokens"] for event in events]
        return {"generated_text": events[-1]["generated_text"], "details": told}

    # the native API

    def _compatible(self, x: Exchange) -> None:
        asked = read(x.request, Generate)
        if asked.stream:
            self._generate_stream(x)
        else:
            self._generate(x, wrapped=True)

    def _generate(self, x: Exchange, wrapped: bool = False) -> None:
        asked = read(x.request, Generate)
        answer = self._whole(asked, self.text)
        if not (asked.parameters.details or asked.parameters.decoder_input_details):
            generated = answer["generated_text"]
            answer = {"generated_text": generated}
            tokens = len(list(self._tokens(asked, self.text)))
        else:
            tokens = answer["details"]["generated_tokens"]
        self._send(x, [answer] if wrapped else answer, prompt_tokens(asked.inputs), tokens)

    def _send(self, x: Exchange, answer: Any, prompt: int, generated: int) -> None:
        headers = [("x-compute-type", "cpu"), ("x-total-time", "3"), ("x-queue-time", "0"), ("x-inference-time", "3")]
        headers += [("x-prompt-tokens", str(prompt)), ("x-generated-tokens", str(generated))]
        answers.whole(200, answers.json_body(answer), *headers)(x)

    def _generate_stream(self, x: Exchange) -> None:
        """A stream whatever happens: every refusal but those of the body's shape is an event of it."""
        asked = read(x.request, Generate)
        x.send(answers.sse_head())
        try:
            self._validate(asked, streams=True)
            for event in self._tokens(asked, self.text):
                if event["details"] is not None and not asked.parameters.details:
                    event["details"] = None
                self._event(x, event)
        except Refused as refusal:
            self._event(x, {"error": refusal.message, "error_type": refusal.type})
        x.send(answers.LAST_CHUNK)

    def _event(self, x: Exchange, data: Any) -> None:
        text = data.encode() if isinstance(data, str) else answers.json_body(data)
        x.send(answers.chunk(b"data:" + b" " * self.space + text + b"\n\n"))

    # OpenAI's doors

    def _base(self, asked: Common, object: str) -> dict[str, Any]:
        model = MODEL if asked.model in (None, "tgi") or isinstance(asked, Completion) else asked.model
        return {"object": object, "id": "", "created": 1700000000, "model": model, "system_fingerprint": FINGERPRINT}

    def _parameters(self, asked: Common, **more: Any) -> Parameters:
        greedy = asked.temperature == 0
        return Parameters(
            temperature=None if greedy else asked.temperature,
            do_sample=not greedy,
            top_p=asked.top_p,
            frequency_penalty=asked.frequency_penalty,
            max_new_tokens=asked.max_tokens,
            stop=asked.stop or [],
            seed=asked.seed,
            details=True,
            **more,
        )

    def _completions(self, x: Exchange) -> None:
        asked = read(x.request, Completion)
        if asked.suffix is not None:
            said = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise Refused(422, said, "suffix not supported")
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        more = {"repetition_penalty": asked.repetition_penalty, "decoder_input_details": not asked.stream}
        wanted = [Generate(prompt, self._parameters(asked, **more)) for prompt in prompts]
        base = self._base(asked, "text_completion")
        if not asked.stream:
            choices, prompt_count, count = [], 0, 0
            for index, one in enumerate(wanted):
                found = self._whole(one, self.text)
                finish = found["details"]["finish_reason"].replace("eos_token", "stop")
                choices.append(
                    {"index": index, "text": found["generated_text"], "logprobs": None, "finish_reason": finish}
                )
                prompt_count += prompt_tokens(one.inputs)
                count += found["details"]["generated_tokens"]
            self._send(x, base | {"choices": choices, "usage": usage(prompt_count, count)}, prompt_count, count)
            return
        x.send(answers.sse_head())
        for index, one in enumerate(wanted):
            try:
                self._validate(one, streams=True)
                for event in self._tokens(one, self.text):
                    details = event["details"]
                    choice = {"index": index, "text": event["token"]["text"], "logprobs": None, "finish_reason": ""}
                    chunk = base | {"choices": [choice]}
                    if details is not None:
                        choice["finish_reason"] = details["finish_reason"]  # eos_token too, in a stream
                        chunk["usage"] = usage(details["input_length"], details["generated_tokens"])
                    self._event(x, chunk)
            except Refused as refusal:
                self._event(x, openai_error(refusal))
        self._event(x, "[DONE]")
        x.send(answers.LAST_CHUNK)

    def _chat(self, x: Exchange) -> None:
        asked = read(x.request, Chat)
        check_chat(asked)
        inputs = "\n".join(content_of(message) for message in asked.messages)
        penalty = None if asked.presence_penalty is None else asked.presence_penalty + 2
        more = {"repetition_penalty": penalty, "top_n_tokens": asked.top_logprobs}
        generate = Generate(inputs, self._parameters(asked, **more))
        tool = self._tool(asked)
        text = self.text if tool is None else "{}"
        if asked.stream:
            self._stream_chat(x, asked, generate, tool)
            return
        found = self._whole(generate, text)
        details = found["details"]
        message: dict[str, Any] = {"role": "assistant", "content": found["generated_text"]}
        if tool is not None:
            function = {
                "description": None,
                "name": tool,
                "arguments": json.dumps(self.arguments, separators=(",", ":")),
            }
            message = {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": function}]}
        choice = {"index": 0, "message": message, "logprobs": None}
        if asked.logprobs:
            choice["logprobs"] = {"content": [logprob(token) for token in details["tokens"]]}
        choice["finish_reason"] = details["finish_reason"].replace("eos_token", "stop")
        count = prompt_tokens(inputs), details["generated_tokens"]
        self._send(x, self._base(asked, "chat.completion") | {"choices": [choice], "usage": usage(*count)}, *count)

    def _tool(self, asked: Chat) -> str | None:
        if not asked.tools or asked.tool_choice == "none" or self.arguments is None:
            return None
        names = [tool.function.name for tool in asked.tools]
        choice = asked.tool_choice
        name = choice.function.name if isinstance(choice, Tool) else choice
        if name in (None, "auto", "required"):
            return names[0]
        if name not in names:
            raise Refused(422, f"Tool error: Tool with name {name} not found", "tool_error")
        return name

    def _stream_chat(self, x: Exchange, asked: Chat, generate: Generate, tool: str | None) -> None:
        base = self._base(asked, "chat.completion.chunk")
        x.send(answers.sse_head())
        try:
            self._validate(generate, streams=True)
            if tool is not None:
                self._stream_call(x, base, tool)
                details = {"input_length": prompt_tokens(generate.inputs), "generated_tokens": 9}
            else:
                for event in self._tokens(generate, self.text):
                    token, details = event["token"], event["details"]
                    finish = None if details is None else details["finish_reason"].replace("eos_token", "stop")
                    delta = {"role": "assistant", "content": "" if token["special"] else token["text"]}
                    logprobs = {"content": [logprob(token)]} if asked.logprobs else None
                    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
                    self._event(x, base | {"choices": [choice], "usage": None})
            if asked.stream_options.include_usage:
                told = usage(details["input_length"], details["generated_tokens"])
                self._event(x, base | {"choices": [], "usage": told})
        except Refused as refusal:
            self._event(x, openai_error(refusal))
        self._event(x, "[DONE]")  # behind an error too
        x.send(answers.LAST_CHUNK)

    def _stream_call(self, x: Exchange, base: dict[str, Any], tool: str) -> None:
        """ChatState: id and type with every piece, and no finish_reason ever."""
        text = json.dumps(self.arguments)
        for number, piece in enumerate([text[0], text[1:4], text[4:]]):
            function = {"name": None if number else tool, "arguments": piece}
            call = {"index": 0, "id": "0", "type": "function", "function": function}
            delta = {"role": "assistant", "tool_calls": [call]}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            self._event(x, base | {"choices": [choice], "usage": None})

    # what is told without a model

    def _info(self, x: Exchange) -> None:
        info = {
            "model_id": MODEL,
            "model_sha": None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": 128,
            "max_best_of": 2,
            "max_stop_sequences": MAX_STOPS,
            "max_input_tokens": MAX_INPUT,
            "max_total_tokens": MAX_TOTAL,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": "3.3.7",
            "sha": None,
            "docker_label": None,
        }
        answers.whole(200, answers.json_body(info))(x)

    def _health(self, x: Exchange) -> None:
        if not self.healthy:
            raise Refused(503, "unhealthy", "healthcheck")
        answers.whole(200, b"")(x)

    def _models(self, x: Exchange) -> None:
        one = {"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}
        answers.whole(200, answers.json_body({"object": "list", "data": [one]}))(x)

    def _metrics(self, x: Exchange) -> None:
        lines = ["# TYPE tgi_queue_size gauge", "tgi_queue_size 3", "# TYPE tgi_batch_current_size gauge"]
        lines += ["tgi_batch_current_size 2", "# TYPE tgi_request_count counter", "tgi_request_count 7", ""]
        answers.whole(200, "\n".join(lines).encode(), type="text/plain; charset=utf-8")(x)


def usage(prompt: int, generated: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def logprob(token: dict[str, Any]) -> dict[str, Any]:
    one = {"token": token["text"], "logprob": token["logprob"]}
    return one | {"top_logprobs": [one]}


def content_of(message: Message) -> str:
    """TextMessage::from: content, or else the calls as a text."""
    if message.content is None:
        return json.dumps(msgspec.to_builtins(message.tool_calls))
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text or f"![]({(part.image_url or {}).get('url')})" for part in message.content)


def openai_error(refusal: Refused) -> dict[str, Any]:
    """InferError::into_openai_event: 422 whatever it is."""
    return {"error": {"message": refusal.message, "http_status_code": 422}}
