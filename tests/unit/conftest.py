"""What holds for the unit tests: properties have no time limit, and the checkout runs as it stands."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

import gateway
from gateway.compiled import is_compiled

# A busy machine breaks no property, whatever time an example takes.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure() -> None:
    if Path(gateway.__file__).parents[1] == Path(__file__).parents[2] and is_compiled():
        pytest.exit("the checkout was compiled in place, so what you change is not what runs: delete its *.so", 2)
