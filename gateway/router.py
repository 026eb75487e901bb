"""The way of a call: from its body to a route, and from there to a fallback.

Owns the reading of what a call asks for, who may have it, and what its route's policy sets going. It refuses the table
(`gateway.routing.routes`), attempts (`gateway.proxy`) and the decision to fall back (`gateway.routing.retry`). Made by
`gateway.proxy`.
"""

from __future__ import annotations

from typing import Final

from gateway.call import Answer, Call
from gateway.clock import NEVER, Clock
from gateway.errors import Fault, Kind, Side
from gateway.heartbeat import Heartbeats
from gateway.peek import read_form, read_json
from gateway.routing.endpoints import Body
from gateway.routing.retry import is_allowed
from gateway.routing.route import SERVED, Policy, Route
from gateway.routing.routes import Routes, why_not_served
from gateway.settle import Settler
from gateway.translation import read_body, translate, unsupported
from protocols import sse
from protocols.dialect import Dropped, Unmappable
from protocols.openai.body import ask_for_usage

#: Said of what no backend has counted.
ESTIMATED: Final = b"x-token-count: estimated\r\n"
_JSON: Final = Body.JSON
_FORM: Final = Body.FORM


class Router:
    """*routes* is the table in force; a call keeps the route that it found."""

    __slots__ = ("_beats", "_clock", "_settler", "routes")

    def __init__(self, routes: Routes, beats: Heartbeats, settler: Settler, clock: Clock) -> None:
        self.routes = routes
        self._beats = beats
        self._settler = settler
        self._clock = clock

    def route(self, call: Call) -> Fault | Answer | None:
        """Find the route of *call*, whose body is complete; why it has none, or what it is answered without one."""
        body = call.endpoint.body
        if body is _JSON or body is _FORM:
            fault = read_json(call) if body is _JSON else read_form(call)
            if fault is not None:
                return fault
            model = call.model
            route = self.routes.exact.get(model) or self.routes.find(model)
            principal = call.principal
            if route is None or not (principal is None or principal.judged.get(model) or principal.may_use(model)):
                return why_not_served(model, route, self.routes)
            if route.choices:
                route = self._choose(call, route)
                if route is None:
                    return why_not_served(model, None, self.routes)
            call.route = route
            if call.endpoint not in route.native:
                verdict = self._translate(call, route)
                if verdict is not None:
                    return verdict
        else:
            route = call.route  # by its path alone
            if route is None:
                return None
        policy = route.policy
        policy.budget.calls += 1
        if policy.total:
            call.total_deadline = call.deadline = self._clock.now + policy.total
        if call.stream:
            self._begin_stream(call, policy)
        return None

    def _translate(self, call: Call, route: Route) -> Fault | Answer | None:
        """Let *call* be said in the words of *route*'s backends; why it cannot, or what it is answered without them."""
        endpoint, speech = call.endpoint, route.speech
        if endpoint in speech.native:
            call.translation = None
            return None
        try:
            if endpoint.count is not None and endpoint in speech.able:
                return Answer(
                    200, b"application/json", endpoint.count(read_body(call), Dropped(lenient=True)), ESTIMATED
                )
            if endpoint.client is None or endpoint not in speech.able:
                return unsupported(call)
            if call.translation is None:
                call.translation = translate(call, endpoint.client, lenient=self.routes.is_lenient(call.model))
            if call.translation.client.task not in speech.sides:
                return unsupported(call)
            call.translation.turn_to(speech)
        except Unmappable as error:
            return Fault(Side.CLIENT, Kind.UNMAPPABLE, error.message, param=error.param)
        return None

    def fall_back(self, call: Call, route: Route) -> Answer | bool:
        """Serve *call* under another route, or under one of its fallbacks where it cannot be said there.

        Where that is a fallback, the answer tells which. False: none of them can be asked. Or it is answered at once.
        """
        assert call.route is not None
        for one in (route, *route.fallbacks):
            verdict = self._translate(call, one) if one is route or is_allowed(call, one) else unsupported(call)
            if not isinstance(verdict, Fault):
                break
        else:
            return False
        if one.serves:
            self._settler.fell_back(call.route, one)
        call.tried = ()
        call.lost_reused = False
        # The line stands last: that of a former fallback goes.
        call.answer_lines = call.answer_lines.partition(SERVED)[0] + one.served_line
        call.route = one
        one.policy.budget.calls += 1
        if one.policy.total and call.total_deadline == NEVER:
            call.total_deadline = call.deadline = self._clock.now + one.policy.total
        if call.stream:
            self._begin_stream(call, one.policy)
        return True if verdict is None else verdict

    def _choose(self, call: Call, route: Route) -> Route | None:
        """The one of several routes that is *call*'s: a fallback already, where nobody serves the model itself."""
        chosen = route.choose(call.id)
        if not chosen.serves:
            return chosen
        for fallback in (chosen, *chosen.fallbacks):
            if is_allowed(call, fallback):
                self._settler.fell_back(route, fallback)
                call.answer_lines += fallback.served_line
                return fallback
        return None

    def _begin_stream(self, call: Call, policy: Policy) -> None:
        """Let *call*, which asks for a stream, have what *policy* gives streams."""
        if call.translation is None and call.fields is not None and policy.inject_usage and call.endpoint.streams_usage:
            call.usage_injected = ask_for_usage(call.fields) or call.usage_injected
        if policy.heartbeat and call.endpoint.dialect.form is sse:  # lines have no comments
            self._beats.begin(call, policy.heartbeat)
