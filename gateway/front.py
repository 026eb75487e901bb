"""The front: from a request's head to a Call, and the answers of the gateway's own operations.

Owns doors, keys, ids, CORS and the operations' answers. It refuses sockets (`gateway.downstream`), the life of a
relayed call (`gateway.proxy`) and what operations say (`gateway.admin`). One Front is made per
generation by `gateway.generation`.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from random import randbytes
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from gateway.admission.budget import ByteBudget
from gateway.admission.keys import Keyring, Principal
from gateway.admission.proxies import Proxies
from gateway.answers import answer_fault, answer_whole
from gateway.call import Answer, Call, Client, Operation
from gateway.clock import Clock
from gateway.errors import Fault, Kind, Side
from gateway.observe.counters import Counter
from gateway.routing.endpoints import Body, Endpoint
from gateway.routing.routes import Routes
from gateway.settle import Settler
from protocols.anthropic.dialect import ANTHROPIC
from protocols.http1.fields import Role, SpecialFields
from protocols.http1.request import METHODS, TARGET_LIMIT, Request
from protocols.http1.response import own_head
from protocols.ollama.dialect import OLLAMA

#: A client's own id is taken if it cannot do harm in a header, a log or a shell.
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
#: version-traceid-parentid-flags (W3C Trace Context, section 3.2).
_TRACEPARENT_LENGTH: Final = 55
#: Ids made at once, which takes a fifth of the time.
_IDS: Final = 64

_ANY: Final = Body.ANY
_REQUEST_ID: Final = int(Role.REQUEST_ID)
_TRACE_ID: Final = int(Role.TRACE_ID)
_TRACEPARENT: Final = int(Role.TRACEPARENT)
_AUTHORIZATION: Final = int(Role.AUTHORIZATION)
_API_KEY: Final = int(Role.API_KEY)
_ORIGIN: Final = int(Role.ORIGIN)
_CONTENT_TYPE: Final = int(Role.CONTENT_TYPE)


def is_id(given: bytes) -> bool:
    """Whether a client's own id is taken; else it gets another."""
    return _ID.fullmatch(given) is not None


class Door(NamedTuple):
    """One path: its endpoint, whether it takes a key, and who answers (None: a backend).

    *twin*: the door of the same path for clients of Anthropic's API, who all send an anthropic-version.
    """

    endpoint: Endpoint
    open: bool
    operation: Operation | None
    twin: Door | None = None


#: Where calls are counted that came to no door, by the dialect that their path belongs to.
NOWHERE: Final = Endpoint("other", Body.NONE, methods=tuple(sorted(METHODS)))
_NOWHERE: Final = {
    b"/v1/messages/": Endpoint("other", Body.NONE, methods=NOWHERE.methods, dialect=ANTHROPIC),
    b"/api/": Endpoint("other", Body.NONE, methods=NOWHERE.methods, dialect=OLLAMA),
}
_VERSION_FIELD: Final = re.compile(rb"^anthropic-version:", re.MULTILINE | re.IGNORECASE)


class Cors(NamedTuple):
    """Which other origins may read answers (Fetch standard, section 3.2). Empty `origins`: none."""

    origins: Sequence[str]
    headers: Sequence[str]
    max_age: int

    def allows(self, origin: bytes) -> bytes:
        """The lines that let *origin* read an answer; nothing where it may not."""
        if "*" in self.origins:
            allowed = b"*"
        elif origin.decode("latin-1") in self.origins:
            allowed = origin
        else:
            return b""
        return b"access-control-allow-origin: " + allowed + b"\r\n" + _EXPOSED + (b"" if allowed == b"*" else _VARY)


_EXPOSED: Final = (
    b"access-control-expose-headers: x-request-id, x-trace-id, x-upstream, x-fallback-model, server-timing, "
    b"retry-after, retry-after-ms, x-should-retry, request-id, x-dropped-fields, x-token-count\r\n"
)
_VARY: Final = b"vary: origin\r\n"


#: What the front found out about a head: endpoint, operation, principal, CORS lines, fault. A repetition of the head is
#: not looked into again. Not named: each request takes it apart, which costs 0.2 us less so.
Finding = tuple[Endpoint, Operation | None, Principal | None, bytes, Fault | None]


class Shedding(NamedTuple):
    """Why calls are refused for now; each is counted. *closes*: its connection is to end too."""

    fault: Fault
    refused: Counter
    closes: bool


class Keys(NamedTuple):
    """How a request names its key. `ring` is None where keys are not asked for."""

    ring: Keyring | None
    query_param: str


class Front:
    """`open` when a head is complete, `operate` when its body is, `refuse` when either cannot be taken."""

    def __init__(
        self,
        *,
        doors: Mapping[bytes, Door],
        prefixes: Sequence[tuple[bytes, Door]],
        keys: Keys,
        proxies: Proxies,
        cors: Cors,
        routes: Routes,
        settler: Settler,
        budget: ByteBudget,
        clock: Clock,
    ) -> None:
        self._doors = dict(doors)
        self._prefixes = tuple(prefixes)
        self._keys = keys
        self._proxies = proxies
        self._cors = cors
        self._routes = routes
        self._settler = settler
        self._budget = budget
        self._clock = clock
        self._passthrough = _passthrough_doors(routes)
        #: Set while calls are to be refused (`gateway.overload`).
        self.shedding: Shedding | None = None
        #: Made for requests to come.
        self._ids: list[bytes] = []

    # A head is complete.

    def open(self, client: Client, request: Request, at_start: int) -> tuple[Call, Fault | None]:
        """The call that *request* begins, and why it cannot be served, if so. Its body need not be there yet."""
        finding: Finding | None = request.finding
        if finding is None:
            request.finding = finding = self._look(request)
        endpoint, operation, principal, cors, fault = finding
        special = request.special
        id = special[_REQUEST_ID]
        if id is None or not _ID.fullmatch(id):
            id = self._ids.pop() if self._ids else self._make_id()
        trace = special[_TRACE_ID]
        if trace is None or not _ID.fullmatch(trace):
            parent = special[_TRACEPARENT] or b""
            trace = parent[3:35]  # no slice made beforehand: mypyc takes it for a number
            if len(parent) != _TRACEPARENT_LENGTH or not trace.isalnum():
                trace = id
        call = Call(client, request, endpoint, self._budget, operation, principal, cors, id, trace, at_start)
        if fault is None and (endpoint.body is _ANY or self.shedding is not None):
            fault = self._shed(call) or (self._pass_through(call) if endpoint.body is _ANY else None)
        return call, fault

    def _shed(self, call: Call) -> Fault | None:
        """Whether *call* is to be refused for the load that it would be: operations are none."""
        shedding = self.shedding
        if shedding is None or call.operation is not None:
            return None
        shedding.refused.value += 1
        if shedding.closes:
            call.client.reusable = False
        return shedding.fault

    def _make_id(self) -> bytes:
        """32 hexadecimal digits at random; others are kept for later."""
        digits = hexlify(randbytes(16 * _IDS))
        self._ids = [digits[at : at + 32] for at in range(0, len(digits), 32)]
        return self._ids.pop()

    def open_forwarded(self, client: Client, request: Request, at_start: int) -> tuple[Call, Fault | None]:
        """The same where *client* is a trusted proxy, which names the one that it speaks for."""
        call, fault = self.open(client, request, at_start)
        forwarded = request.special[Role.FORWARDED_FOR]
        if forwarded is not None:
            call.address = self._proxies.client(forwarded, client.address)
        return call, fault

    def trusts(self, address: str) -> bool:
        """Whether requests from *address* are to be opened by `open_forwarded`."""
        return self._proxies.trusts(address)

    def _look(self, request: Request) -> Finding:
        """What the head says apart from ids and sizes."""
        special = request.special
        origin = special[_ORIGIN]
        cors = self._cors.allows(origin) if origin is not None else b""
        door = self._doors.get(request.path) or self._find_door(request)
        if door is None:
            fault = Fault(Side.CLIENT, Kind.UNKNOWN_PATH, "There is nothing at this path.")
            nowhere = (one for prefix, one in _NOWHERE.items() if request.path.startswith(prefix))
            return (next(nowhere, NOWHERE), None, None, cors, fault)
        if door.twin is not None and _VERSION_FIELD.search(b"".join(request.forward)):
            door = door.twin
        endpoint = door.endpoint
        if request.method == b"OPTIONS" and cors and special[Role.CORS_METHOD] is not None:
            return (endpoint, self._preflight, None, cors, None)
        if request.method not in endpoint.methods:
            fault = Fault(Side.CLIENT, Kind.BAD_METHOD, "This path does not take this method.")
            return (endpoint, None, None, cors, fault)
        principal = None
        if not door.open and self._keys.ring is not None:
            principal = self._keys.ring.identify(self._presented(request))
            if principal is None:
                text = "An API key that the gateway knows is needed: Authorization: Bearer KEY."
                fault = Fault(Side.CLIENT, Kind.NO_KEY, text)
                return (endpoint, None, None, cors, fault)
        return (endpoint, door.operation, principal, cors, _judge_body_kind(endpoint, special))

    def _find_door(self, request: Request) -> Door | None:
        for prefix, door in self._prefixes:
            if request.path.startswith(prefix):
                return door
        if request.path.startswith(b"/v1/") and not _climbs(request.path):
            path = request.path.decode("latin-1")
            for pattern, door in self._passthrough:
                if fnmatchcase(path, pattern):
                    return door
        return None

    def _presented(self, request: Request) -> bytes:
        """The key that *request* names; empty where it names none."""
        authorization = request.special[_AUTHORIZATION]
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            return authorization[7:].strip(b" \t")
        return request.special[_API_KEY] or self._key_in_query(request)

    def _key_in_query(self, request: Request) -> bytes:
        name = self._keys.query_param
        if not name or not request.query:
            return b""
        return dict(parse_qsl(request.query.decode("latin-1"))).get(name, "").encode("latin-1", "replace")

    def _pass_through(self, call: Call) -> Fault | None:
        """Find the backend that lists this path: by X-Backend, else the first one."""
        principal = call.principal
        if principal is not None and not principal.passthrough:
            return Fault(Side.CLIENT, Kind.PATH_FORBIDDEN, "This key may not use paths that are passed through.")
        path = call.request.path.decode("latin-1")
        wanted = call.request.special[Role.BACKEND]
        for group in self._routes.groups.values():
            if wanted is not None and group.name.encode() != wanted:
                continue
            if not any(fnmatchcase(path, pattern) for pattern in group.passthrough):
                continue
            if principal is not None and not any(principal.may_use(model) for model in group.models):
                continue
            call.route = self._routes.of_backend(group.name)
            return None
        return Fault(Side.CLIENT, Kind.UNKNOWN_PATH, "No backend takes this path for this key.")

    # A body is complete, or never will be.

    def operate(self, call: Call) -> None:
        """Let the operation answer *call*, whose body is complete."""
        assert call.operation is not None
        answer = call.operation(call)
        if isinstance(answer, Fault):
            self._fault(call, answer)
        else:
            self._answer(call, answer)

    def refuse(self, call: Call, fault: Fault) -> None:
        """Answer *fault*; the connection's owner decides beforehand whether it can live on (`client.reusable`)."""
        self._fault(call, fault)

    def no_request(self, client: Client, at_start: int, data: bytes) -> Call:
        """What *data*, which is no request, is refused as: a call at the door that it names, if it names one."""
        id = self._make_id()
        named = Request()
        named.path = data.partition(b"\r\n")[0].partition(b" ")[2].partition(b" ")[0].partition(b"?")[0][:TARGET_LIMIT]
        door = self._doors.get(named.path) or self._find_door(named)
        endpoint = door.endpoint if door is not None else NOWHERE
        return Call(client, Request(), endpoint, self._budget, None, None, b"", id, id, at_start)

    def gone(self, call: Call) -> None:
        """The client left while its body was still coming."""
        call.fault = Fault(Side.CLIENT, Kind.CLIENT_GONE, "The client closed the connection.")
        call.status = call.fault.status
        self._end(call)

    def _preflight(self, call: Call) -> Answer:
        headers = ", ".join(self._cors.headers)
        if headers == "*":
            # The wildcard does not cover Authorization (Fetch standard, section 4.9): name what was asked for.
            asked = call.request.special[Role.CORS_HEADERS]
            headers = asked.decode("latin-1") if asked is not None and _ID_LIST.fullmatch(asked) else "*"
        call.answer_lines += (
            b"access-control-allow-methods: " + b", ".join(call.endpoint.methods) + b"\r\n"
            b"access-control-allow-headers: " + headers.encode("latin-1") + b"\r\n"
            b"access-control-max-age: %d\r\n" % self._cors.max_age
        )
        return Answer(204, b"", b"")

    def _answer(self, call: Call, answer: Answer) -> None:
        head = own_head(answer.status, answer.content_type, len(answer.body))
        answer_whole(call, head, answer.body, self._clock.date, answer.lines)
        self._end(call)
        call.client.answered()

    def _fault(self, call: Call, fault: Fault) -> None:
        answer_fault(call, fault, self._clock.date)
        self._end(call)
        call.client.answered()

    def _end(self, call: Call) -> None:
        call.drop_body()
        self._settler.settle(call)


def _climbs(path: bytes) -> bool:
    """Whether *path* has a segment that leads upwards where it is normalised: the pattern would not hold there."""
    segments = re.split(rb"[/\\]", unquote_to_bytes(path))
    return b".." in segments or b"." in segments


def _judge_body_kind(endpoint: Endpoint, special: SpecialFields) -> Fault | None:
    """Whether the body is of a kind that *endpoint* takes."""
    content_type = special[_CONTENT_TYPE]
    if (
        endpoint.body is Body.JSON
        and content_type is not None
        and b"json" not in content_type.lower()
        # A page of another site may send such a body without being asked whether it may: it has to say what it sends.
        and (not endpoint.dialect.any_content_type or special[Role.ORIGIN] is not None)
    ):
        return Fault(Side.CLIENT, Kind.BAD_MEDIA_TYPE, "Send the body as content-type: application/json.")
    if special[Role.CONTENT_ENCODING] not in (None, b"identity"):
        return Fault(Side.CLIENT, Kind.BAD_MEDIA_TYPE, "Send the body without content-encoding.")
    return None


_ID_LIST: Final = re.compile(rb"[A-Za-z0-9._, -]{1,1024}")


def _passthrough_doors(routes: Routes) -> tuple[tuple[str, Door], ...]:
    methods = tuple(sorted(METHODS - {b"HEAD", b"OPTIONS"}))
    patterns = dict.fromkeys(pattern for group in routes.groups.values() for pattern in group.passthrough)
    return tuple(
        (pattern, Door(Endpoint(pattern, Body.ANY, methods=methods, media=True), False, None)) for pattern in patterns
    )
