"""The layers of the house, held: every import of `gateway` and `protocols` is read and judged.

The table below is the one of docs/architecture.md. A line may import from the lines above it, and from itself only
within one entry: two entries of one line do not know each other.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("gateway", "protocols")

LAYERS: tuple[tuple[str, ...], ...] = (
    # pure wire, then vocabularies
    ("protocols.pieces", "protocols.prometheus"),
    ("protocols.http1", "protocols.sse", "protocols.ndjson", "protocols.multipart", "protocols.proxy_protocol"),
    ("protocols.dialect",),
    ("protocols.text_run",),
    ("protocols.openai",),
    ("protocols.anthropic", "protocols.ollama", "protocols.tgi"),
    # values
    ("gateway.errors", "gateway.clock", "gateway.compiled", "gateway.config.schema"),
    ("gateway.pem", "gateway.within"),
    ("gateway.certificates",),
    ("gateway.page", "gateway.deathsig", "gateway.memory"),
    ("gateway.pulse", "gateway.columns"),
    ("gateway.call",),
    # what is counted and written; what is configured
    ("gateway.observe", "gateway.config"),
    ("gateway.answers",),
    ("gateway.relay", "gateway.intake", "gateway.peek", "gateway.sockets", "gateway.listener", "gateway.secure"),
    ("gateway.farewell", "gateway.heartbeat", "gateway.deadlines", "gateway.pauses"),
    # policy
    ("gateway.routing", "gateway.admission"),
    # mechanics
    ("gateway.upstream",),
    ("gateway.settle", "gateway.probation", "gateway.translation", "gateway.collector"),
    ("gateway.commit",),
    # the life of a call
    ("gateway.router",),
    ("gateway.proxy",),
    ("gateway.front",),
    ("gateway.client_socket",),
    ("gateway.downstream", "gateway.admin"),
    ("gateway.clients",),
    ("gateway.tls",),
    ("gateway.arrival",),
    # wiring
    ("gateway.gate", "gateway.overload", "gateway.places", "gateway.presets"),
    ("gateway.states",),
    ("gateway.estate", "gateway.roster"),
    ("gateway.upstreams",),
    ("gateway.generation",),
    ("gateway.build",),
    ("gateway.channel",),
    ("gateway.worker",),
    ("gateway.forks", "gateway.vigil"),
    ("gateway.crew",),
    ("gateway.upgrade",),
    ("gateway.supervisor",),
    ("gateway.watch",),
    ("gateway.host",),
    ("gateway.cli",),
    ("gateway.__main__",),
)

#: The version and nothing else: anybody may ask for it.
ROOTS = ("gateway", "protocols")

#: What the wire has no use for: time, chance, waiting, sockets, files, logs.
IMPURE = frozenset(
    {
        *("asyncio", "concurrent", "multiprocessing", "select", "selectors", "signal", "subprocess", "threading"),
        *("datetime", "random", "secrets", "time"),
        *("logging", "os", "pathlib", "shutil", "socket", "socketserver", "ssl", "tempfile"),
    }
)

#: Who reads configuration, and who is handed the whole of it. Everybody else is given the values that it uses: a
#: single section of the schema at most.
READ_CONFIG = (
    "gateway.config",
    "gateway.build",
    "gateway.generation",
    "gateway.places",
    "gateway.presets",
    "gateway.roster",
    "gateway.estate",
    "gateway.upstreams",
    "gateway.watch",
    "gateway.host",
    "gateway.cli",
)
SEE_CONFIG = (*READ_CONFIG, "gateway.worker", "gateway.channel", "gateway.supervisor")


@dataclass(frozen=True)
class Import:
    """One imported module (or, where `name` is set, a name of it)."""

    line: int
    target: str
    name: str = ""
    only_types: bool = False
    in_function: bool = False


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module

    @property
    def imports(self) -> list[Import]:
        return list(_imports(self.tree.body))


def _imports(nodes: list[ast.stmt], only_types: bool = False, in_function: bool = False) -> Iterator[Import]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, "", only_types, in_function)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                yield Import(node.lineno, node.module, alias.name, only_types, in_function)
        else:
            types = only_types or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(_children(node), types, function)


def _children(node: ast.AST) -> list[ast.stmt]:
    """The statements directly below *node*: bodies, else branches, handlers, cases."""
    found: list[ast.stmt] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            found.append(child)
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            found += _children(child)
    return found


def read_modules() -> dict[str, Module]:
    modules = {}
    for top in OURS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = Module(name, ast.parse(path.read_text(), str(path)))
    return modules


def module_of(one: Import, names: set[str]) -> str:
    """The module that *one* imports: `from a import b` means a.b where that is a module."""
    return f"{one.target}.{one.name}" if f"{one.target}.{one.name}" in names else one.target


def is_ours(target: str) -> bool:
    return target.partition(".")[0] in OURS


def is_below(name: str, entry: str) -> bool:
    return name == entry or name.startswith(entry + ".")


def place_of(name: str) -> tuple[int, str]:
    """The line and the entry of *name*: the longest entry counts."""
    entries = [(len(entry), at, entry) for at, line in enumerate(LAYERS) for entry in line if is_below(name, entry)]
    assert entries, f"{name} has no place in the table of layers"
    _, at, entry = max(entries)
    return at, entry


def wrong_layers(name: str, targets: list[str]) -> list[str]:
    """What *name* must not import out of *targets*."""
    if name in ROOTS:
        return targets
    at, entry = place_of(name)
    wrong = []
    for target in targets:
        if target in ROOTS:
            continue
        target_at, target_entry = place_of(target)
        if not (target_at < at or target_entry == entry):
            wrong.append(target)
    return wrong


MODULES = read_modules()
NAMES = set(MODULES)
every_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES.keys())


def test_all_modules_are_found() -> None:
    assert {"gateway.proxy", "protocols.http1.framing", "gateway.cli"} <= NAMES


@every_module
def test_a_module_imports_only_from_layers_above_it(module: Module) -> None:
    found = [one for one in module.imports if is_ours(one.target) and not one.only_types]
    assert not wrong_layers(module.name, [module_of(one, NAMES) for one in found])


@every_module
def test_no_import_stands_inside_a_function(module: Module) -> None:
    assert not [one for one in module.imports if one.in_function]


@every_module
def test_no_private_name_is_taken_from_another_module(module: Module) -> None:
    ours = [one for one in module.imports if is_ours(one.target)]
    assert not [one for one in ours if one.name.startswith("_") and one.name != "__version__"]


@every_module
def test_what_is_imported_for_types_is_used_in_annotations_only(module: Module) -> None:
    names = {one.name or one.target.partition(".")[0] for one in module.imports if one.only_types}
    assert not names & names_at_run_time(module.tree)


def names_at_run_time(tree: ast.Module) -> set[str]:
    """Every name that is evaluated when the module runs: annotations are not, being postponed."""
    annotations: set[int] = set()
    for node in ast.walk(tree):
        found = [getattr(node, name, None) for name in ("annotation", "returns")]
        for annotation in found:
            if isinstance(annotation, ast.AST):
                annotations |= {id(inner) for inner in ast.walk(annotation)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in annotations}


@pytest.mark.parametrize("module", [m for m in MODULES.values() if is_below(m.name, "protocols")], ids=lambda m: m.name)
def test_the_wire_is_pure(module: Module) -> None:
    assert not impure(module)


def impure(module: Module) -> list[str]:
    """What *module* imports although it belongs to the wire."""
    allowed = {"httptools", "msgspec", "orjson", "protocols"} | (sys.stdlib_module_names - IMPURE)
    return [one.target for one in module.imports if one.target.partition(".")[0] not in allowed]


def test_there_is_no_cycle() -> None:
    graph = {
        name: {module_of(one, NAMES) for one in module.imports if is_ours(one.target) and not one.only_types}
        for name, module in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle: {' -> '.join(error.args[1])}")


@every_module
def test_configuration_is_read_in_one_place_and_seen_whole_in_few(module: Module) -> None:
    for one in module.imports:
        if not is_below(one.target, "gateway.config"):
            continue
        if module_of(one, NAMES) != "gateway.config.schema":
            assert any(is_below(module.name, entry) for entry in READ_CONFIG), one
        elif one.name in ("", "schema", "Config"):
            assert any(is_below(module.name, entry) for entry in SEE_CONFIG), one


def test_every_package_imported_is_declared_and_every_one_declared_is_imported() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split()
    declared = {re.split(r"[<>=!~\[]", line)[0].replace("-", "_") for line in lines}
    imported = {one.target.partition(".")[0] for module in MODULES.values() for one in module.imports}
    assert imported - sys.stdlib_module_names - set(OURS) == declared


# The judges themselves: each must refuse.


def parse(source: str, name: str = "gateway.example") -> Module:
    return Module(name, ast.parse(source))


@pytest.mark.parametrize(
    ("name", "target", "wrong"),
    [
        ("protocols.sse", "gateway.call", True),
        ("protocols.http1.head", "protocols.openai.body", True),
        ("protocols.openai.body", "protocols.sse", False),
        ("protocols.sse", "protocols.multipart", True),
        ("gateway.routing.balance", "gateway.admission.keys", True),
        ("gateway.admission.keys", "gateway.routing.peer", True),
        ("gateway.routing.balance", "gateway.routing.peer", False),
        ("gateway.proxy", "gateway.upstream.http", False),
        ("gateway.upstream.http", "gateway.proxy", True),
        ("gateway.proxy", "gateway.downstream", True),
        ("gateway.call", "gateway.config.schema", False),
        ("gateway.call", "gateway.config.load", True),
        ("gateway.build", "gateway.worker", True),
        ("gateway.build", "gateway", False),
        ("gateway", "gateway.errors", True),
    ],
)
def test_the_table_of_layers_decides(name: str, target: str, wrong: bool) -> None:
    assert bool(wrong_layers(name, [target])) is wrong


def test_a_module_without_a_place_is_refused() -> None:
    with pytest.raises(AssertionError, match="no place"):
        place_of("gateway.helpers")
    with pytest.raises(AssertionError, match="no place"):
        place_of("gateway.callback")


def test_an_import_is_found_wherever_it_hides() -> None:
    source = """
import a.b
if TYPE_CHECKING:
    from c import d
try:
    import e
except ImportError:
    import f
class G:
    import g
    def method(self):
        with self:
            from h import i as j
async def k():
    match 1:
        case 1:
            import l
"""
    assert [(one.target, one.name, one.only_types, one.in_function) for one in parse(source).imports] == [
        ("a.b", "", False, False),
        ("c", "d", True, False),
        ("e", "", False, False),
        ("f", "", False, False),
        ("g", "", False, False),
        ("h", "i", False, True),
        ("l", "", False, True),
    ]


def test_a_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="absolute"):
        _ = parse("from . import call").imports


@pytest.mark.parametrize("source", ["import asyncio", "from time import monotonic", "import os.path", "import uvloop"])
def test_an_impure_import_is_seen(source: str) -> None:
    assert impure(parse(source))
    assert not impure(parse("import re, struct\nfrom http import HTTPStatus\nimport msgspec"))


def test_a_name_that_runs_is_told_from_one_that_annotates() -> None:
    source = "def f(a: A, *b: B) -> C:\n    d: D = E()\n    return cast('F', d)"
    assert names_at_run_time(parse(source).tree) & set("ABCDEF") == {"E"}
