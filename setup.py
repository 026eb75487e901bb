"""Compiles what every call runs through to C, where that can be done; all else about the package stands in setup.cfg.

The modules are the same Python either way. Where there is no C compiler they are installed as they are and serve as
well, for a third more instructions a call. `HEADRACE_COMPILE` says what is wanted: 0 never, 1 always (the build fails
where it cannot be done), unset: where a C compiler and Python's headers are found.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

#: What every call runs through. Left out are modules whose classes a decoder fills (msgspec). What is different in a
#: compiled module stands in docs/dependencies.md.
COMPILED = (
    "gateway/admission/budget.py",
    "gateway/admission/keys.py",
    "gateway/answers.py",
    "gateway/call.py",
    "gateway/client_socket.py",
    "gateway/clock.py",
    "gateway/downstream.py",
    "gateway/errors.py",
    "gateway/front.py",
    "gateway/intake.py",
    "gateway/observe/counters.py",
    "gateway/peek.py",
    "gateway/proxy.py",
    "gateway/relay.py",
    "gateway/router.py",
    "gateway/routing/balance.py",
    "gateway/routing/breaker.py",
    "gateway/routing/circuits.py",
    "gateway/routing/endpoints.py",
    "gateway/routing/host.py",
    "gateway/routing/peer.py",
    "gateway/routing/retry.py",
    "gateway/routing/route.py",
    "gateway/settle.py",
    "gateway/upstream/connection.py",
    "gateway/upstream/http.py",
    "gateway/upstream/pool.py",
    "protocols/http1/fields.py",
    "protocols/http1/framing.py",
    "protocols/http1/repeat.py",
    "protocols/http1/request.py",
    "protocols/http1/response.py",
    "protocols/http1/state.py",
    "protocols/openai/body.py",
    "protocols/openai/usage.py",
)
#: One release of mypyc, the one that all tests ran with; and what it reads types from: without them it would compile
#: everything as of unknown type.
COMPILER = ("mypy==2.4.1", "httptools>=0.9", "msgspec>=0.22", "orjson>=3.11", "prometheus-client>=0.26", "uvloop>=0.23")

WANTED = os.environ.get("HEADRACE_COMPILE", "")


def can_compile() -> bool:
    """Whether this is a Python that the tests know, and a C compiler and Python's headers are here."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 14):
        return False
    compiler = (os.environ.get("CC", "").strip() or sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(compiler) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


class BuildOrLeave(build_ext):
    """Builds all of it or nothing: a module that is compiled cannot do with a neighbour that is not."""

    def run(self) -> None:
        for left in Path(self.build_lib).rglob("*.so"):  # of an earlier build, of other modules perhaps
            left.unlink()
        try:
            super().run()
        except Exception as error:
            if WANTED == "1":
                raise
            print(f"headrace: not compiled, installed as Python ({error})", file=sys.stderr)
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []

    def build_extensions(self) -> None:
        """As ever, but an extension's sources side by side: there is one for each module."""
        one_after_another = self.compiler.compile

        def side_by_side(sources: list[str], *args: object, **kwargs: object) -> list[str]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                made = pool.map(lambda source: one_after_another([source], *args, **kwargs), sources)
                return [made_object for objects in made for made_object in objects]

        self.compiler.compile = side_by_side
        super().build_extensions()


def extensions() -> list[object]:
    """What is to be compiled; empty where mypyc is not here (it is asked for before it is needed) or will not do it."""
    try:
        from mypyc.build import mypycify

        return mypycify([*COMPILED], opt_level="2", debug_level="0", group_name="headrace", multi_file=True)
    except (Exception, SystemExit) as error:  # it exits where types do not fit, those of a newer dependency for one
        if WANTED == "1":
            raise
        print(f"headrace: not compiled, installed as Python ({error})", file=sys.stderr)
        return []


def leave_plain() -> None:
    """Remove what was compiled in place: it would hide the modules, or be looked for where it is not."""
    for module in (*COMPILED, "headrace__mypyc.py"):
        for left in Path(module).parent.glob(f"{Path(module).stem}.*.so"):
            left.unlink()


if WANTED not in ("", "0", "1"):
    sys.exit(f"HEADRACE_COMPILE is {WANTED!r}, expected 0, 1 or nothing")
COMPILES = WANTED == "1" or (WANTED != "0" and can_compile())
#: What only asks or packs needs no extensions. Nor has an editable install any unless they are wanted: it is for those
#: who change the modules, and what was compiled would hide what they write.
ASKS = {"egg_info", "dist_info", "sdist", "clean"} & {*sys.argv}
EDITS = {"editable_wheel", "develop"} & {*sys.argv}

if EDITS and WANTED != "1":
    leave_plain()

setup(
    setup_requires=COMPILER if COMPILES and "egg_info" in sys.argv else (),
    ext_modules=extensions() if COMPILES and not ASKS and (WANTED == "1" or not EDITS) else [],
    cmdclass={"build_ext": BuildOrLeave},
)
