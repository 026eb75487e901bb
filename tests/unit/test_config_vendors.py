"""The vendors' own variables reach the vendors' own hosts, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.schema import Backend
from tests.unit.configuring import written

KEYS = {"OPENAI_API_KEY": "sk-open", "ANTHROPIC_API_KEY": "sk-ant"}
AUTH = 'auth = {keys = [{name = "k", key = "sk-1"}]}'


def backend(tmp_path: Path, protocol: str, endpoints: str, more: str = "", environ: dict[str, str] = KEYS) -> Backend:
    text = f"{AUTH}\n[[backends]]\nname = 'b'\nmodels = ['m']\nprotocol = '{protocol}'\nendpoints = {endpoints}\n{more}"
    return load([written(tmp_path, text)], environ, {}).backends[0]


@pytest.mark.parametrize(
    ("protocol", "endpoints", "type", "token"),
    [
        ("openai", "['https://api.openai.com/v1']", "bearer", "sk-open"),
        ("anthropic", "['https://api.anthropic.com']", "header", "sk-ant"),
        ("openai", "[{ url = 'https://API.openai.com/v1' }]", "bearer", "sk-open"),
        ("openai", "['http://api.openai.com/v1']", "none", ""),
        ("openai", "['https://api.openai.com.example.org/v1']", "none", ""),
        ("openai", "['https://api.openai.com/v1', 'https://example.org/v1']", "none", ""),
        ("openai", "['http://127.0.0.1:8000/v1']", "none", ""),
    ],
)
def test_a_vendors_key_goes_to_the_vendor_alone(
    tmp_path: Path, protocol: str, endpoints: str, type: str, token: str
) -> None:
    auth = backend(tmp_path, protocol, endpoints).auth
    assert (auth.type, str(auth.token)) == (type, token)


def test_credentials_of_a_backends_own_win(tmp_path: Path) -> None:
    more = "auth = { type = 'bearer', token = 'own' }"
    assert backend(tmp_path, "openai", "['https://api.openai.com/v1']", more).auth.token == "own"


def test_without_the_variable_nothing_is_sent(tmp_path: Path) -> None:
    assert backend(tmp_path, "openai", "['https://api.openai.com/v1']", environ={}).auth.type == "none"
