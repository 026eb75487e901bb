"""Log lines to files and pipes, off the hot path: recording a line costs no system call and never waits.

Owns `AccessLog`, the bounded writer, and `Outlet`, one destination. It refuses to choose what is logged:
`settle` records one set of fields per call, `logs` the program's own messages. Made by `build`, one per
process, and closed last of all.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Final, Literal

import msgspec
import orjson

from gateway.observe.counters import Counter

#: Bytes joined for one write. Large, since each write hands the interpreter's lock over and back; small
#: beside the log's limit, since the joined copy exists for a moment beside its lines.
PIECE: Final = 128 << 10

#: Characters of any text that came from outside; more is no help to a reader.
TEXT_LIMIT: Final = 256

#: Characters of a `reason`: an operator's own configuration at fault in several places has to be told whole.
REASON: Final = "reason"
REASON_LIMIT: Final = 2048

#: Bytes. Lines are far below it by themselves; one above it carries a text that nobody cut, and is cut here.
LINE_LIMIT: Final = 8 << 10

#: What tells that nobody will ever read: the reader is gone, or the descriptor is.
GONE: Final = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN})

NEWLINE: Final = 0x0A

#: What JSON leaves as it is although it breaks or turns a line on a screen: U+0080-009F (some terminals take
#: them for escape sequences), the separators U+2028 and U+2029, the direction marks U+202A-202E, U+2066-2069.
UNRULY: Final = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


_decode_lines: Final = msgspec.json.Decoder(dict[str, Any]).decode_lines


class Outlet:
    """One destination of lines. Only the writer thread writes to it."""

    def __init__(self, fd: int, *, owned: bool) -> None:
        # given
        self._fd = fd
        self._owned = owned
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)
        mode = os.fstat(fd).st_mode
        #: Whether other processes' lines may come between two parts of one write, as with a pipe.
        self._shared = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        # as the destination fares
        self._gone = False
        self._torn = False

    def write(self, piece: bytes) -> int:
        """Write whole lines, wait for the reader if need be, and return how many of them were lost."""
        if self._gone:
            return piece.count(b"\n")
        # A line that broke off on a full disk is ended first, lest the next one be glued to it.
        data = b"\n" + piece if self._torn else piece
        first = len(data) - len(piece)
        done = 0
        while done < len(data):
            try:
                done += os.write(self._fd, memoryview(data)[done : self._end(data, done)])
            except BlockingIOError:
                # Someone else set O_NONBLOCK on what we share with them.
                self._ready.poll()
            except OSError as fault:
                self._gone = fault.errno in GONE
                break
        if done:
            self._torn = data[done - 1] != NEWLINE
        return data.count(b"\n", max(done, first))

    def _end(self, data: bytes, start: int) -> int:
        """Where one write from *start* ends.

        Workers share a pipe, and only writes up to PIPE_BUF are taken as one: so it ends with the last line that is
        whole within that. A longer line goes alone, and may be torn.
        """
        if not self._shared:
            return len(data)
        end = data.rfind(b"\n", start, start + select.PIPE_BUF) + 1
        return end or data.find(b"\n", start) + 1 or len(data)

    @property
    def takes(self) -> bool:
        """Whether a write would not wait."""
        return bool(self._ready.poll(0))

    def close(self) -> None:
        if self._owned:
            os.close(self._fd)


def outlet(name: str) -> Outlet:
    """The destination *name*: "stdout", "stderr" or a file's path. What cannot be opened raises OSError."""
    if name in ("stdout", "stderr"):
        return Outlet(1 if name == "stdout" else 2, owned=False)
    # O_NONBLOCK: a fifo that nobody reads is an error at once instead of a start that hangs.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return Outlet(os.open(name, flags, 0o640), owned=True)


class AccessLog:
    """Lines on their way to the outlets, at most *limit* bytes of them; the rest is dropped and counted.

    Every method belongs to the loop's thread. One thread serves the outlets in their order; one that blocks
    holds up the others, never the caller. A line is counted in *dropped* once for each outlet that missed it,
    at the latest with the next `flush`, and once where it was not even queued.
    """

    def __init__(
        self, outlets: Sequence[Outlet], limit: int, style: Literal["json", "pretty"], dropped: Counter
    ) -> None:
        # given
        self._outlets = outlets
        self._form = _json if style == "json" else _pretty
        self._dropped = dropped
        # the loop's thread writes these
        #: Brings, through `add`, what `settle` has not yet made into records; called before any other line is queued.
        self.gather: Callable[[], None] = _nothing
        self._encode_lines = msgspec.json.Encoder().encode_lines
        self._pending: deque[bytes] = deque()
        self._room = limit
        self._handed = 0
        self._taken = 0
        self._told = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        # between the two
        self._batches: SimpleQueue[deque[bytes] | None] = SimpleQueue()
        # the writer thread writes these; sums that only grow need no lock
        self._done = 0
        self._lost = 0

    @property
    def held(self) -> int:
        """Bytes of lines not yet written or given up, those in the writer thread's hands included."""
        return self._taken - self._done

    def add(self, records: Sequence[msgspec.Struct]) -> None:
        """Queue one line for each of *records*, whose fields are short texts, numbers, None and raw JSON. Never waits.

        Records come many at a time: the encoder's and the writer's code runs once for many calls.
        """
        lines = self._encode_lines(records)
        if self._form is _pretty:
            lines = b"".join(_pretty(fields) for fields in _decode_lines(lines))
        else:
            lines = tame(lines)
        taken = self._taken + len(lines)
        if taken - self._done > self._room:
            self._dropped.value += len(records)
            return
        self._taken = taken
        self._pending.append(lines)
        if taken - self._handed >= PIECE:
            self.flush()

    def record(self, fields: Mapping[str, object]) -> None:
        """Queue one line. Never raises and never waits; texts from outside need no escaping by the caller."""
        try:
            line = self._form(fields)
        except Exception:
            # A value without a text. No call may fail for its log line; the counter tells.
            self._dropped.value += 1
            return
        self.gather()
        taken = self._taken + len(line)
        if taken - self._done > self._room:
            self._dropped.value += 1
            return
        self._taken = taken
        self._pending.append(line)

    def flush(self) -> None:
        """Hand what is pending to the writer thread. The owner's sweep calls it, about every 100 ms."""
        lost = self._lost
        self._dropped.value += lost - self._told
        self._told = lost
        self.gather()
        if self._pending:
            self._handed = self._taken
            batch, self._pending = self._pending, deque()
            self._batches.put(batch)
            if self._thread is None:
                # A daemon: a pipe that is never read must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> bool:
        """Write what is left within *timeout* seconds, and tell if that was done. Later lines are dropped."""
        if not self._closed:
            self.flush()
            self._closed = True
            self._room = 0
            self._batches.put(None)
            if self._thread is None:
                self._close_outlets()
        if self._thread is not None:
            self._thread.join(timeout)
        self.flush()
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            while batch:
                piece = _piece(batch)
                for each in self._outlets:
                    self._lost += each.write(piece)
                self._done += len(piece)
        self._close_outlets()

    def _close_outlets(self) -> None:
        for each in self._outlets:
            each.close()


class DirectLines:
    """Lines that are written at once, for a process that writes few and has no thread.

    A line is dropped by an outlet that does not take it at once: nothing may hold the supervisor up.
    """

    def __init__(self, outlets: Sequence[Outlet], style: Literal["json", "pretty"]) -> None:
        self._outlets = outlets
        self._form = _json if style == "json" else _pretty

    def record(self, fields: Mapping[str, object]) -> None:
        """Write one line. Never waits and never raises; values without a text drop it."""
        try:
            line = self._form(fields)
        except Exception:
            return
        for each in self._outlets:
            if each.takes:
                each.write(line)

    def close(self) -> None:
        for each in self._outlets:
            each.close()


def _nothing() -> None:
    """Nobody keeps lines back."""


def _piece(batch: deque[bytes]) -> bytes:
    """Lines from the front of *batch*, joined. They are taken off, so that memory falls as the bound says."""
    lines = [batch.popleft()]
    size = len(lines[0])
    while batch and size + len(batch[0]) <= PIECE:
        lines.append(batch.popleft())
        size += len(lines[-1])
    return b"".join(lines)


def tame(line: bytes) -> bytes:
    """*line*, which is JSON, with the characters escaped that would break or turn it on a screen."""
    return line if line.isascii() else UNRULY.sub(_spelt, line)


def _json(fields: Mapping[str, object]) -> bytes:
    """One line of JSON. Bytes are shown as text; a text that JSON cannot hold is repaired, not refused."""
    try:
        line = orjson.dumps(fields, _text, orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        line = orjson.dumps(_tamed(fields), None, orjson.OPT_APPEND_NEWLINE)
    if len(line) > LINE_LIMIT:
        line = orjson.dumps(_tamed(fields), None, orjson.OPT_APPEND_NEWLINE)
    return tame(line)


def _pretty(fields: Mapping[str, object]) -> bytes:
    """One line for a human: the time, level and message as they are, the rest as key=value."""
    return (" ".join(_words(_tamed(fields))) + "\n").encode()


def _words(fields: Mapping[str, str | int | float | bool | None]) -> Iterator[str]:
    for name, value in fields.items():
        text = str(value)
        if name == "level":
            yield f"{text.upper():7}"
        elif name in ("ts", "msg") and text.isprintable():
            yield text
        elif text.isprintable() and text and not any(mark in text for mark in ' "'):
            yield f"{name}={text}"
        else:
            yield f"{name}={json.dumps(text, ensure_ascii=not text.isprintable())}"


def _tamed(fields: Mapping[str, object]) -> dict[str, str | int | float | bool | None]:
    """*fields* with every value plain, valid and short."""
    return {
        _text(name): _plain(value, REASON_LIMIT if name == REASON else TEXT_LIMIT) for name, value in fields.items()
    }


def _plain(value: object, limit: int) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | float):
        return value
    # JSON readers agree on integers of 53 bits only; orjson refuses those above 64.
    if isinstance(value, int) and abs(value) < 1 << 53:
        return int(value)
    return _text(value, limit)


def _text(value: object, limit: int = TEXT_LIMIT) -> str:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text[:limit].encode("utf-8", "backslashreplace").decode()


def _spelt(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())
