"""What a gateway holds, as seen from outside: descriptors, memory, gauges, and the columns of its page.

Owns the looking. It refuses to wait and to judge (`run`, `judge`). Used by `subject`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from bench import scrape
from bench.cpu import PAGE, waited_ns
from gateway.page import Page

#: Gauges that are 0 while nobody calls. The connection that asks is one of `gateway_client_connections`.
GAUGES: Final = (
    "gateway_in_flight_requests",
    "gateway_upstream_connections",
    "gateway_body_budget_bytes",
    "gateway_client_connections",
)


class Held(msgspec.Struct):
    """What all workers hold; memory and descriptors one by one, by pid."""

    fds: dict[int, int]
    rss: dict[int, int]
    gauges: dict[str, float]
    #: Calls in flight by the page's columns, over all rows.
    columns: int
    lines_lost: float
    #: The gateway's own histogram of how late its loops woke up: upper bound in seconds -> observations up to it.
    lag: dict[float, float]
    #: Seconds for which the workers were ready to run and had no processor.
    waited: float

    @property
    def most_fds(self) -> int:
        """Of one worker."""
        return max(self.fds.values())

    @property
    def busy(self) -> dict[str, float]:
        """What an idle gateway does not hold."""
        found = {**self.gauges, "in-flight columns": float(self.columns)}
        found["gateway_client_connections"] -= 1
        return {name: value for name, value in found.items() if value}


def held(port: int, workers: Sequence[int]) -> Held:
    gauges = dict.fromkeys(GAUGES, 0.0)
    text = scrape.text(port)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in gauges:
                gauges[sample.name] += sample.value
    found = scrape.read(text)
    return Held(
        {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in workers},
        {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in workers},
        gauges,
        columns(workers[0]),
        found.lines_lost,
        found.lag,
        sum(map(waited_ns, workers)) / 1e9,
    )


def _links(pid: int) -> Iterator[tuple[str, str]]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            yield fd, os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:  # closed meanwhile
            pass


def columns(pid: int) -> int:
    """Calls in flight at all peers, as the workers' rows of the page say; 0 where there is no page."""
    found = [fd for fd, link in _links(pid) if "memfd:" in link]
    if not found:
        return 0
    page = Page(os.open(f"/proc/{pid}/fd/{found[0]}", os.O_RDWR | os.O_CLOEXEC))
    try:
        return sum(sum(map(abs, row.calls)) for row in page.rows)
    finally:
        page.close()


def stands_still(pid: int) -> bool:
    """Whether *pid* was stopped (or is gone): a signal is sent before it is obeyed."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZX"


def client_ports(pid: int, port: int) -> set[int]:
    """The other ends of *pid*'s connections on *port*, by /proc/net/tcp."""
    inodes = {link[8:-1] for _, link in _links(pid) if link.startswith("socket:[")}
    ours = f":{port:04X}"
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and fields[1].endswith(ours):
            found.add(int(fields[2].rpartition(":")[2], 16))
    return found
