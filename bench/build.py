"""Which build of the gateway is measured, and how it is started.

What users run is the installed headrace, whose hot path is compiled where that can be done; the benchmark is run from
a checkout, which is plain Python. So the installed one is measured where it is made of the checkout's sources, else the
checkout, and the report says which one and why.

Owns the choice, its words, and the command and environment that keep to it. It refuses to install and to compile, and
to guess: the interpreter that will be started is asked. Found once, for `targets`, `faults` and the reports.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from bench.processes import ROOT, Broken, surroundings

PACKAGES: Final = ("gateway", "protocols")

NOT_INSTALLED: Final = "headrace is not installed here"
ANOTHER: Final = "the installed headrace is not this checkout: pip install . first"

#: Keeps the working directory, which is the checkout, out of the places where modules are looked for.
ELSEWHERE: Final = ("-P",)
#: Told by a child: a folder for each package, and whether that is where pip puts them.
_LOOK: Final = f"""
import importlib.util, json, os, site
folders = []
for name in {PACKAGES!r}:
    spec = importlib.util.find_spec(name)
    folders += list(spec and spec.submodule_search_locations or ())[:1]
sites = [*site.getsitepackages(), site.getusersitepackages()]
print(json.dumps([folders, all(os.path.dirname(folder) in sites for folder in folders)]))
"""
_SAYS: Final = re.compile(r"headrace \S+ \((compiled|plain Python)\)\n")
#: Seconds that a child has for its one line.
PATIENCE: Final = 60.0


class Build(msgspec.Struct, frozen=True):
    """A gateway that can be started. Its string is what the report says."""

    python: str
    #: Of the interpreter: they decide which gateway it finds.
    options: tuple[str, ...]
    place: str
    form: str
    #: Why it is not another one, or not quite what it seems.
    why: str = ""

    def __str__(self) -> str:
        words = f"{self.place}, {self.form}"
        return f"{words} ({self.why})" if self.why else words

    def command(self, *arguments: str, more: tuple[str, ...] = ()) -> list[str]:
        """`headrace` with *arguments*, under this interpreter with *more* options; it needs `environment`."""
        return [self.python, *self.options, *more, "-m", "gateway", *arguments]


@functools.cache
def measured() -> Build:
    """The gateway that this benchmark measures. Broken where it does not start."""
    return find()


def find(checkout: Path = ROOT, python: str = sys.executable) -> Build:
    """The build to measure from *checkout*, whose folder it will be started in. Broken where none of them starts."""
    folders, installed = _look(checkout, python)
    own = [checkout / name for name in PACKAGES]
    if len(folders) < len(own):
        why = NOT_INSTALLED
    elif [folder.resolve() for folder in folders] == [folder.resolve() for folder in own]:
        # An editable install, or PYTHONPATH: the checkout is what was asked for.
        why = ""
    elif [sources(folder) for folder in folders] != [sources(folder) for folder in own]:
        why = ANOTHER
    else:
        place = "installed" if installed else str(folders[0].parent)
        return _asked(Build(python, ELSEWHERE, place, ""), checkout)
    build = _asked(Build(python, (), "this checkout", "", why), checkout)
    if build.form != "compiled":
        return build
    return msgspec.structs.replace(build, form="compiled in place", why=why or _outdated(own))


def environment() -> dict[str, str]:
    """What a gateway is started with: `Build.options` alone hide the checkout, or do not."""
    # Whoever runs this may have a gateway of their own configured.
    return {name: value for name, value in surroundings().items() if not name.startswith(("GEN_GATEWAY", "GATEWAY_"))}


def sources(folder: Path) -> dict[str, bytes]:
    """Every Python source below *folder*, by its path there."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.py")}


def _look(checkout: Path, python: str) -> tuple[list[Path], bool]:
    """Where *python* finds the packages if not in its working directory, and whether they are installed there."""
    folders, installed = msgspec.json.decode(_said([python, *ELSEWHERE, "-c", _LOOK], checkout), type=_Looked)
    return [Path(folder) for folder in folders], installed


_Looked = tuple[list[str], bool]


def _asked(build: Build, checkout: Path) -> Build:
    """*build* with its form, as it says itself."""
    command = build.command("--version")
    said = _said(command, checkout)
    form = _SAYS.fullmatch(said)
    if not form:
        raise Broken(f"{' '.join(command)} does not say how it is built: {said!r}")
    return msgspec.structs.replace(build, form=form[1])


def _outdated(own: list[Path]) -> str:
    """What is to be said where a source was changed after it was compiled in place; empty: none was."""
    made = [file.stat().st_mtime_ns for folder in own for file in folder.rglob("*.so")]
    # A module's extension is a stub that need not change with it: its code is in one library for all of them.
    made += [file.stat().st_mtime_ns for file in own[0].parent.glob("*.so")]
    compiled = {file.parent / f"{file.name.partition('.')[0]}.py" for folder in own for file in folder.rglob("*.so")}
    later = sorted(file.name for file in compiled if file.exists() and file.stat().st_mtime_ns > max(made))
    return f"before {later[0]} was changed" if later else ""


def _said(command: list[str], checkout: Path) -> str:
    """What *command* prints, run as the gateway will be. The folder matters: PYTHONPATH may be relative to it."""
    done = subprocess.run(
        command, cwd=checkout, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise Broken(f"{' '.join(command[:-1])} failed\n{done.stderr[-2000:]}")
    return done.stdout
