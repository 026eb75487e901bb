"""Ends: which events say that their stream is over, and which only look like it."""

from __future__ import annotations

import pytest

from protocols.openai.ends import breaks_off, says_end

ENDS = {
    "chat [DONE]": b"data: [DONE]",
    "[DONE] without a space": b"data:[DONE]",
    "a finish reason": b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    "a finish reason, spaced": b'data: {"choices": [{"delta": {}, "finish_reason" : "length"}]}',
    "responses completed": b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"1"}}',
    "responses incomplete": b'data: {"type": "response.incomplete","response":{}}',
    "responses failed": b'data: {"type":"response.failed","response":{}}',
    "an image": b'data: {"type":"image_generation.completed","b64_json":"AAAA"}',
    "an edited image": b'data: {"type":"image_edit.completed","b64_json":"AAAA"}',
    "speech": b'data: {"type":"speech.audio.done","usage":{"input_tokens":1}}',
    "a transcript": b'data: {"type":"transcript.text.done","text":"hello"}',
    "an error object": b'data: {"error":{"message":"out of memory"}}',
    "an error text": b'data: {"error": "out of memory"}',
}

GOES_ON = {
    "nothing": b"",
    "a delta": b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}',
    "a delta without a reason": b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}',
    "a comment": b": [DONE]",
    "[DONE] as text": b'data: {"choices":[{"delta":{"content":"data: [DONE]"},"finish_reason":null}]}',
    "[DONE] behind a line end in text": b'data: {"choices":[{"delta":{"content":"\\ndata: [DONE]"}}]}',
    "a reason as text": b'data: {"choices":[{"delta":{"content":"{\\"finish_reason\\":\\"stop\\"}"}}]}',
    "a type as text": b'data: {"choices":[{"delta":{"content":"\\"type\\":\\"response.completed\\""}}]}',
    "an error as text": b'data: {"choices":[{"delta":{"content":"\\"error\\":{\\"a\\":1}"}}]}',
    "a null error": b'data: {"type":"response.created","response":{"error":null,"incomplete_details":null}}',
    "usage alone": b'data: {"choices":[],"usage":{"prompt_tokens":1}}',
    "responses created": b'data: {"type":"response.created","response":{}}',
    "responses in progress": b'data: {"type":"response.in_progress","response":{"status":"in_progress"}}',
    "a delta of a response": b'data: {"type":"response.output_text.delta","delta":"done"}',
    "one text of a response done": b'data: {"type":"response.output_text.done","text":"hello"}',
    "one part of a response done": b'data: {"type":"response.content_part.done","part":{"type":"output_text"}}',
    "one item of a response done": b'data: {"type":"response.output_item.done","item":{"status":"completed"}}',
    "arguments done": b'data: {"type":"response.function_call_arguments.done","arguments":"{}"}',
    "reasoning done": b'data: {"type":"response.reasoning_summary_text.done","text":"hm"}',
    "one tool completed": b'data: {"type":"response.web_search_call.completed","item_id":"1"}',
    "one tool failed": b'data: {"type":"response.mcp_call.failed","item_id":"1"}',
    "part of an image": b'data: {"type":"image_generation.partial_image","b64_json":"AAAA"}',
    "part of a transcript": b'data: {"type":"transcript.text.delta","delta":"hello"}',
}

LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
DELTA = b'data: {"choices":[{"delta":{"content":"a"}}]}'


@LINE_ENDS
@pytest.mark.parametrize("event", ENDS.values(), ids=ENDS.keys())
def test_the_last_event_says_so_wherever_it_stands(end: bytes, event: bytes) -> None:
    event = event.replace(b"\n", end) + end * 2
    other = DELTA + end * 2
    for events in (event, event[: -2 * len(end)], other + event, event + other, b": ping" + end * 2 + event):
        assert says_end(events)


@LINE_ENDS
@pytest.mark.parametrize("event", GOES_ON.values(), ids=GOES_ON.keys())
def test_no_other_event_says_so(end: bytes, event: bytes) -> None:
    other = DELTA + end * 2
    for events in (event, event + end * 2, other + event + end * 2, event + end * 2 + other):
        assert not says_end(events)


@pytest.mark.parametrize("data", [b'{"id": "x', b'{"a": [1, 2', b"[", b"[DO", b'{"a": 1}}', b'{"a": "\xff"}x'])
def test_json_that_stops_half_way_breaks_off(data: bytes) -> None:
    assert breaks_off(data)


@pytest.mark.parametrize("data", [b"[DONE]", b"{}", b'{"a": [1, {"b": null}]}', b"[]", b"hello", b"", b"12"])
def test_whole_json_and_what_is_none_does_not_break_off(data: bytes) -> None:
    assert not breaks_off(data)
