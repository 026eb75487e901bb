"""The Dockerfile carried out without a container engine: each stage in a folder that stands for its root.

Owns the reading of the instructions that our Dockerfile uses, and their effect on a folder. It refuses what it does
not know, so that a new instruction cannot go untested. A virtual environment in usr/local stands for the Python of
the base image, and absolute paths are moved below the folder. Made by `test_dockerfile`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: An absolute path that begins a word.
_ABSOLUTE = re.compile(r"(?<![^\s=])/(?=[\w.])")
#: Root may read an interpreter in a closed home; whoever stands in for the image's user must be able to as well.
_READ_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def read_dockerfile(path: Path) -> list[tuple[str, str]]:
    """The instructions of *path*: name and argument, continued lines joined, comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines) if name]


@dataclass
class Image:
    """One stage, as far as it was built."""

    root: Path
    workdir: str = "/"
    user: str = "0"
    ports: list[int] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """Where the image's *path* lies; a relative one counts from the working directory."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name == "HOME"}
        return {"PATH": f"{self.root}/usr/local/bin:/usr/bin:/bin", **pip, **more}

    def start(self, command: list[str], *, output: Path, **more: str) -> subprocess.Popen[bytes]:
        """Start *command* as the image's user, with *more* in its environment."""
        moved = [_ABSOLUTE.sub(f"{self.root}/", word) for word in command]
        program = str(self.root / "usr/local/bin" / moved[0])
        assert os.path.lexists(program), f"the image has no {moved[0]}"
        with output.open("wb") as out:
            return subprocess.Popen(
                [*self._as_user(), program, *moved[1:]],
                cwd=self.inside("."),
                env=self.environment(more),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def _as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        user, _, group = self.user.partition(":")
        return ["setpriv", f"--reuid={user}", f"--regid={group or user}", "--clear-groups", *_READ_ALL]


class Build:
    """Carries out a Dockerfile below *folder*, with *more* in the environment; `image` is its last stage."""

    def __init__(self, dockerfile: Path, folder: Path, **more: str) -> None:
        self._context = dockerfile.parent
        self._folder = folder
        self._more = more
        self._stages: dict[str, Image] = {}
        self.image: Image
        for name, rest in read_dockerfile(dockerfile):
            getattr(self, f"_{name.lower()}")(rest)

    def _from(self, rest: str) -> None:
        base, _, stage = rest.partition(" AS ")
        assert base.startswith("python:"), base
        root = self._folder / (stage or f"stage-{len(self._stages)}")
        # Without ensurepip, which Debian's Python lacks: pip is a folder like any other package.
        venv.create(root / "usr/local", symlinks=True)
        found = importlib.util.find_spec("pip")
        assert found is not None
        assert found.origin is not None
        packages = next((root / "usr/local/lib").glob("python3*/site-packages"))
        shutil.copytree(Path(found.origin).parent, packages / "pip")
        script = root / "usr/local/bin/pip"
        script.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
        script.chmod(0o755)
        self.image = self._stages[stage or str(len(self._stages))] = Image(root)

    def _workdir(self, rest: str) -> None:
        self.image.workdir = os.path.join(self.image.workdir, rest)
        self.image.inside(".").mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        option, _, stage = sources[0].partition("--from=")
        if not option:
            sources = [str(self._stages[stage].inside(source)) for source in sources[1:]]
        destination = self.image.inside(target)
        for source in sources:
            path = self._context / source
            assert path.exists(), f"COPY {source}: it is not there"
            if path.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, destination, ignore=ignored, dirs_exist_ok=True)
            elif target.endswith("/"):
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, destination)
            else:
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, destination)

    def _run(self, rest: str) -> None:
        image = self.image
        assert image.user == "0", "RUN after USER is not known here"
        done = subprocess.run(
            ["sh", "-c", _ABSOLUTE.sub(f"{image.root}/", rest)],
            cwd=image.inside("."),
            env=image.environment(self._more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout}\n{done.stderr}"

    def _user(self, rest: str) -> None:
        self.image.user = rest

    def _expose(self, rest: str) -> None:
        self.image.ports += [int(port) for port in rest.split()]

    def _healthcheck(self, rest: str) -> None:
        self.image.health = json.loads(rest.partition("CMD ")[2])

    def _cmd(self, rest: str) -> None:
        self.image.command = json.loads(rest)
