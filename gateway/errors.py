"""Faults: what went wrong, whose it is, whether it may be tried again, and the one place where a status is decided.

Owns `Fault` and the tables of kinds. It refuses to write bodies (a dialect does that, `protocols.dialect`) and to
decide on a retry (`routing.retry`). Made wherever something breaks; read by `proxy` and `settle`.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final

from protocols.dialect import ErrorObject
from protocols.http1.errors import WireError, Wrong


class Side(Enum):
    """Whose fault it is. The value is the first letter of the call's ending when nothing timed out."""

    CLIENT = "C"
    UPSTREAM = "U"
    GATEWAY = "G"


class Retry(IntEnum):
    """What a repetition would risk.

    UNSENT: no byte of the request reached the peer; it may be sent again anywhere.
    REUSED: lost on a reused connection before any byte of an answer; once more, on a fresh connection.
    REPEATABLE: sent and answered by nothing usable; only endpoints that merely generate.
    NEVER: the answer was begun, or the request itself is at fault.
    """

    UNSENT = 0
    REUSED = 1
    REPEATABLE = 2
    NEVER = 3


class Kind(Enum):
    """Every way in which a call can fail: (status, error type, error code).

    The types are OpenAI's, so that its SDK raises the exception that a user of OpenAI would expect
    (https://platform.openai.com/docs/guides/error-codes).
    """

    BAD_REQUEST = (400, "invalid_request_error", "bad_request")
    BAD_JSON = (400, "invalid_request_error", "invalid_json")
    MISSING_MODEL = (400, "invalid_request_error", "missing_model")
    BAD_MODEL = (400, "invalid_request_error", "invalid_model")
    BAD_STREAM = (400, "invalid_request_error", "invalid_stream")
    UNSUPPORTED = (400, "invalid_request_error", "unsupported_endpoint")
    UNMAPPABLE = (400, "invalid_request_error", "unsupported_parameter")
    NO_KEY = (401, "invalid_request_error", "invalid_api_key")
    MODEL_FORBIDDEN = (403, "permission_error", "model_not_allowed")
    PATH_FORBIDDEN = (403, "permission_error", "path_not_allowed")
    UNKNOWN_MODEL = (404, "invalid_request_error", "model_not_found")
    UNKNOWN_PATH = (404, "invalid_request_error", "unknown_path")
    BAD_METHOD = (405, "invalid_request_error", "method_not_allowed")
    SLOW_REQUEST = (408, "invalid_request_error", "request_timeout")
    BODY_TOO_LARGE = (413, "invalid_request_error", "body_too_large")
    TARGET_TOO_LONG = (414, "invalid_request_error", "target_too_long")
    BAD_MEDIA_TYPE = (415, "invalid_request_error", "unsupported_media_type")
    BAD_EXPECTATION = (417, "invalid_request_error", "unsupported_expectation")
    HEAD_TOO_LARGE = (431, "invalid_request_error", "head_too_large")
    CLIENT_STALLED = (408, "invalid_request_error", "client_stopped_reading")
    CLIENT_GONE = (499, "invalid_request_error", "client_closed_request")
    INTERNAL = (500, "server_error", "internal_error")
    BAD_TRANSFER_CODING = (501, "invalid_request_error", "unsupported_transfer_encoding")
    UPSTREAM_TLS = (502, "server_error", "upstream_tls_failed")
    UPSTREAM_LOST = (502, "server_error", "upstream_lost")
    UPSTREAM_BROKEN = (502, "server_error", "upstream_invalid_response")
    UPSTREAM_UNAUTHORIZED = (502, "server_error", "upstream_unauthorized")
    UPSTREAM_ERROR = (502, "server_error", "upstream_error")
    NO_PEER = (503, "service_unavailable", "no_healthy_upstream")
    MODELS_UNKNOWN = (503, "service_unavailable", "models_not_yet_known")
    OUT_OF_BUDGET = (503, "service_unavailable", "overloaded")
    SHED = (503, "service_unavailable", "load_shed")
    DRAINING = (503, "service_unavailable", "draining")
    UPSTREAM_SLOW = (504, "server_error", "upstream_timeout")
    BAD_VERSION = (505, "invalid_request_error", "http_version_not_supported")

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def type(self) -> str:
        return self.value[1]

    @property
    def code(self) -> str:
        return self.value[2]


#: What is wrong with a request's bytes -> the answer, and the words that it begins with.
WRONG_KINDS: Final = {
    Wrong.BAD_FRAMING: (Kind.BAD_REQUEST, "Bad request"),
    Wrong.BAD_HEAD: (Kind.BAD_REQUEST, "Bad request"),
    Wrong.BAD_HOST: (Kind.BAD_REQUEST, "Bad request"),
    Wrong.DUPLICATE_FIELD: (Kind.BAD_REQUEST, "Bad request"),
    Wrong.BAD_METHOD: (Kind.BAD_METHOD, "Method not allowed"),
    Wrong.BAD_VERSION: (Kind.BAD_VERSION, "HTTP version not supported"),
    Wrong.BAD_TRANSFER_CODING: (Kind.BAD_TRANSFER_CODING, "Not implemented"),
    Wrong.BAD_EXPECTATION: (Kind.BAD_EXPECTATION, "Expectation failed"),
    Wrong.HEAD_TOO_LARGE: (Kind.HEAD_TOO_LARGE, "Request head too large"),
    Wrong.TARGET_TOO_LONG: (Kind.TARGET_TOO_LONG, "Request target too long"),
}

#: Seconds a client is asked to wait with each 503, told in Retry-After.
RETRY_AFTER: Final = 1


class Fault:
    """One failure. `message` is shown to the client: no address, no secret, no stack trace goes into it.

    `timed_out` makes the ending's first letter lower case (HAProxy's habit: `u` is an upstream timeout).
    `body` is the error object that the upstream itself gave in the client's dialect, relayed instead of one of ours;
    `told` the same where it came in another one. `answered` is the status
    of the answer that it gave, 0 where there was none; `wait` seconds were asked for by it (Retry-After); `is_final`
    where it would say the same again.
    """

    __slots__ = (
        *("answered", "body", "is_final", "kind", "message", "param", "retry", "side", "timed_out", "told", "wait"),
    )

    def __init__(
        self,
        side: Side,
        kind: Kind,
        message: str,
        retry: Retry = Retry.NEVER,
        *,
        timed_out: bool = False,
        param: str | None = None,
        body: bytes | None = None,
        told: ErrorObject | None = None,
        answered: int = 0,
        wait: float = 0.0,
        is_final: bool = False,
    ) -> None:
        self.side = side
        self.kind = kind
        self.message = message
        self.retry = retry
        self.timed_out = timed_out
        self.param = param
        self.body = body
        self.told = told
        self.answered = answered
        self.wait = wait
        self.is_final = is_final

    @property
    def status(self) -> int:
        return self.kind.status

    @property
    def error(self) -> ErrorObject:
        """What the client is told, for its dialect to say."""
        kind = self.kind
        return self.told or ErrorObject(kind.status, self.message, kind.type, kind.code, self.param)

    def __repr__(self) -> str:
        return f"<Fault {self.side.name} {self.kind.name} {self.retry.name}: {self.message}>"


def refusal(error: WireError) -> Fault:
    """The answer to a request that *error* was found in."""
    kind, words = WRONG_KINDS[error.kind]
    return Fault(Side.CLIENT, kind, f"{words}: {error}.")
