"""Load hints: servers that tell how many requests they have are asked for it every few seconds, beside the calls.

Owns the `Scraper`: when it asks, and whose words are understood. It refuses which worker asks (`turn`), what an
exposition looks like (`protocols.prometheus`) and what becomes of a hint (`gateway.routing.load`). One is made per
worker by `gateway.estate`. Each question has a connection of its own, which no call gets, and counts as no call.

Requests that run and those that wait, each summed over a server's engines: vLLM (0.32), SGLang (with --enable-metrics),
TGI (3.3), llama.cpp's server (with --metrics). Each has a vocabulary of its own, so all are looked for at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import random, uniform
from typing import Final, NamedTuple

from gateway.clock import Clock
from gateway.page import Seat
from gateway.routing.host import Hearsay
from gateway.routing.load import Loads
from gateway.routing.peer import PeerState
from gateway.upstream.http import Target
from gateway.upstream.inquiry import InquiryError, read
from gateway.upstream.turn import is_ours
from protocols.prometheus import Malformed, total

GAUGES: Final = (
    *(b"vllm:num_requests_running", b"vllm:num_requests_waiting"),
    *(b"sglang:num_running_reqs", b"sglang:num_queue_reqs"),
    *(b"tgi_batch_current_size", b"tgi_queue_size"),
    *(b"llamacpp:requests_processing", b"llamacpp:requests_deferred"),
)
#: Bytes of an answer: vLLM's is some 100 KB.
ANSWER_LIMIT: Final = 1 << 20
#: Seconds between two questions to a server that does not tell, at most: the wait is doubled with each answer in vain.
SLOWEST: Final = 60.0
#: Each wait is longer or shorter by up to this part of it.
_JITTER: Final = 0.2


class Terms(NamedTuple):
    """How a server is asked: seconds."""

    path: bytes
    interval: float
    timeout: float


class Question:
    """One server's."""

    __slots__ = ("due", "state", "target", "task", "terms", "vain")

    def __init__(self, state: PeerState, target: Target, terms: Terms) -> None:
        self.state = state
        self.target = target.apart()
        self.terms = terms
        #: When it is asked next, by the clock.
        self.due = 0.0
        #: Questions in a row on which nothing was told.
        self.vain = 0
        self.task: asyncio.Task[None] | None = None

    @property
    def wait(self) -> float:
        """Seconds until it is asked again."""
        interval = self.terms.interval
        return min(interval * 2.0 ** min(self.vain, 16), max(interval, SLOWEST))


class Scraper:
    """Sweeps through the servers of the present configuration, while it is this worker's turn."""

    def __init__(self, seat: Seat, clock: Clock, loads: Loads) -> None:
        self._seat = seat
        self._clock = clock
        self._loads = loads
        self._hearsay = Hearsay(seat)
        self._questions: dict[PeerState, Question] = {}

    def take_over(self, peers: Iterable[tuple[PeerState, Target, Terms]]) -> None:
        """Ask the servers of these *peers* from now on. Those that stay are asked when they would have been."""
        former, self._questions = self._questions, {}
        for state, target, terms in peers:
            known = former.get(state)
            if known is None or known.terms != terms:
                self._questions[state] = Question(state, target, terms)
            else:
                self._questions[state] = former.pop(state)
        for question in former.values():
            if question.task is not None:
                question.task.cancel()
        self._loads.take_over((one.state, one.terms.interval) for one in self._questions.values())

    def sweep(self, now: float) -> None:
        """Ask those that are due."""
        if not self._questions or not is_ours(self._seat):
            return
        for question in self._questions.values():
            if not question.due:
                # Those that are asked for the first time are not asked all at once.
                question.due = now + random() * question.terms.interval
            elif now >= question.due and question.task is None:
                question.task = asyncio.get_running_loop().create_task(self._ask(question))

    async def _ask(self, question: Question) -> None:
        """Pass on what the server tells. Calls that came or went meanwhile are not taken for others'."""
        state, terms = question.state, question.terms
        own = self._hearsay.in_flight(state)
        try:
            told = total(await read(question.target, terms.path, terms.timeout, ANSWER_LIMIT), GAUGES)
        except (InquiryError, Malformed):
            told = None
        finally:
            question.task = None
        question.vain = question.vain + 1 if told is None else 0
        question.due = self._clock.now + question.wait * uniform(1 - _JITTER, 1 + _JITTER)
        if told is not None:
            self._loads.tell(state, round(told), max(own, self._hearsay.in_flight(state)))

    async def close(self) -> None:
        """Ask no more."""
        tasks = [question.task for question in self._questions.values() if question.task is not None]
        self._questions = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
