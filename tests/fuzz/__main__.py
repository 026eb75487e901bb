"""`python -m tests.fuzz NAME [libFuzzer's options] [FOLDER]`: search for bytes that break a property.

Needs atheris (`pip install atheris`). What it finds is written to the working folder as crash-...; a file that was
mended belongs into tests/data/corpus/NAME/, which is where the search begins.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import atheris

CORPUS = Path(__file__).parents[1] / "data" / "corpus"


def search(module: ModuleType, name: str, options: list[str], folder: Path) -> None:
    """Begin with the module's SEEDS and what was found before. What is new goes to a folder among *options*."""
    words = folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in module.WORDS))
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(module.SEEDS):
        (seeds / str(number)).write_bytes(seed)
    given = [option for option in options if not option.startswith("-")]
    options = [option for option in options if option.startswith("-")] or ["-runs=100000"]
    found = [str(one) for one in (CORPUS / name,) if one.is_dir()]
    with module.opened() as check:
        atheris.Setup([sys.argv[0], f"-dict={words}", *options, *given, str(seeds), *found], check)
        atheris.Fuzz()


with atheris.instrument_imports(include=["gateway", "protocols"]):
    chosen = importlib.import_module(f"tests.fuzz.{sys.argv[1]}")
with tempfile.TemporaryDirectory() as temporary:
    search(chosen, sys.argv[1], sys.argv[2:], Path(temporary))
