"""The counters as text, for Prometheus to scrape: its text format 0.0.4, or OpenMetrics 1.0.

Owns the two formats. It refuses to count (`counters`) and to speak HTTP: whoever serves the metrics path
calls it. What the operating system knows of the process comes from prometheus_client's collectors, which read
/proc at each scrape; they have a registry of their own, and nothing of ours enters prometheus_client's global
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.exposition import generate_latest as text_of
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_of
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.registry import Collector, CollectorRegistry

from gateway.observe.counters import AnyFamily, Counter, Gauge, Histogram, Registry, Type

#: The content type to answer with.
TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = b"application/openmetrics-text; version=1.0.0; charset=utf-8"


def collectors(*own: Collector) -> CollectorRegistry:
    """What is shown behind our own families: what *own* collect, and the platform.

    They hold no state but where /proc is. The gc collector is left out: it hooks into every collection.
    """
    registry = CollectorRegistry()
    for collector in own:
        registry.register(collector)
    PlatformCollector(registry=registry)
    return registry


def render(registry: Registry, system: CollectorRegistry, openmetrics: bool = False) -> bytes:
    """All families of *registry*, then those of *system*. Called in the loop's thread, which alone counts."""
    lines: list[str] = []
    for family in registry.families:
        lines += _family(family, openmetrics)
    ours = "\n".join(lines) + "\n"
    # The process's part ends with OpenMetrics's end mark, so it stands last.
    if openmetrics:
        rest: bytes = openmetrics_of(system)  # type: ignore[no-untyped-call]  # it has no annotations
    else:
        rest = text_of(system)
    return ours.encode() + rest


def _family(family: AnyFamily, openmetrics: bool) -> Iterator[str]:
    name, help = family.name, _line(family.help)
    if openmetrics:
        # There quotes are escaped in help too, and a counter's family is called without the suffix.
        help = _quotable(family.help)
        name = name.removesuffix("_total") if family.type is Type.COUNTER else name
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {family.type.value}"
    for values, child in family.children.items():
        pairs = ",".join(map(_pair, family.labels, values))
        yield from _child(family.name, pairs, child)


def _child(name: str, pairs: str, child: Counter | Gauge | Histogram) -> Iterator[str]:
    block = f"{{{pairs}}}" if pairs else ""
    match child:
        case Counter():
            yield f"{name}{block} {child.value}"
        case Gauge():
            yield f"{name}{block} {_number(child.read())}"
        case Histogram():
            before = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
            below = 0
            for bound, hits in zip((*child.bounds, float("inf")), child.hits, strict=True):
                below += hits
                yield f'{before}le="{_number(bound)}"}} {below}'
            yield f"{name}_sum{block} {_number(child.total)}"
            yield f"{name}_count{block} {below}"


def _number(value: float) -> str:
    text = repr(float(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)


def _line(text: str) -> str:
    """*text* on one line. A lone surrogate has no UTF-8; it is spelt out rather than fatal to the scrape."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quotable(text: str) -> str:
    return _line(text).replace('"', '\\"')


def _pair(label: str, text: str) -> str:
    return f'{label}="{_quotable(text)}"'
