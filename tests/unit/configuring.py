"""Loading configurations in tests: TOML text in, the Config or the lines of its faults out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypothesis import settings

from gateway.config.load import ConfigError, load
from gateway.config.schema import Config

#: The same examples in every run, however busy the machine.
STEADY = settings(deadline=None, derandomize=True)

#: Enough for a configuration with backends of its own: they ask for a key.
KEYED = '[[auth.keys]]\nname = "k"\nkey = "a-key"\n'
BACKEND = '[[backends]]\nname = "b"\nendpoints = ["http://localhost:1"]\n'


def written(folder: Path, text: str, name: str = "gateway.toml") -> str:
    """The path of a file in *folder* that holds *text*."""
    path = folder / name
    path.write_text(text)
    return str(path)


def loaded(
    folder: Path,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Config:
    paths = [written(folder, text)] if text else []
    return load(paths, environ or {}, overrides or {})


def faults(
    folder: Path,
    text: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> list[str]:
    """The lines of the faults, without the folder; empty where there is none."""
    try:
        loaded(folder, text, environ, overrides)
    except ConfigError as error:
        return [line.replace(f"{folder}/", "") for line in str(error).splitlines()]
    return []
