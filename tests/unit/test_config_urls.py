"""The addresses of peers, and which hosts are only this machine."""

from __future__ import annotations

import pytest

from gateway.config.urls import Url, is_host, is_loopback, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", Url("http", "localhost", 80, "", "")),
        ("https://api.example.com/v1", Url("https", "api.example.com", 443, "/v1", "")),
        ("HTTP://Host:8001/", Url("http", "Host", 8001, "/", "")),
        ("http://127.0.0.1:8000/base/v1", Url("http", "127.0.0.1", 8000, "/base/v1", "")),
        ("http://[::1]:8000", Url("http", "::1", 8000, "", "")),
        ("mock://local", Url("mock", "local", 0, "", "")),
        ("mock://a?delay=50ms&error=503", Url("mock", "a", 0, "", "delay=50ms&error=503")),
    ],
)
def test_an_address_is_read_in_its_parts(url: str, expected: Url) -> None:
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a URL"),
        ("localhost:8000", "not a URL"),
        ("http:/localhost", "not a URL"),
        ("http://a b", "visible ASCII"),
        ("http://a\r\nHost: b", "visible ASCII"),
        ("http://höst", "visible ASCII"),
        ("http://a/\x7f", "visible ASCII"),
        ("ftp://a", "scheme ftp"),
        ("grpc://a:50051", "scheme grpc"),
        ("http://", "host and port"),
        ("http://:80", "host and port"),
        ("http://a:", "host and port"),
        ("http://a:b", "host and port"),
        ("http://a:0", "port 0"),
        ("http://a:65536", "port 65536"),
        ("mock://a:0", "port 0"),
        ("http://[::g]", "host and port"),
        ("http://[::1", "host and port"),
        ("http://256.1.1.1", "host and port"),
        ("http://1.2.3", "host and port"),
        ("http://a..b", "host and port"),
        ("http://-a", "host and port"),
        ("http://a?b=c", "query"),
        ("http://a?", "query"),
        ("https://a#b", "fragment"),
        ("mock://a#b", "fragment"),
    ],
)
def test_what_is_no_address_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(url)


@pytest.mark.parametrize("url", ["http://me:hunter2@a", "http://hunter2@a", "http://me:hunter2@a:99999/x?y"])
def test_a_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="under auth") as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LocalHost"])
def test_the_loopback_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "[::]", "10.0.0.1", "128.0.0.1", "localhost.example", "127.0.0.1.example", "", "127.1"]
)
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "fe80::1", "gateway", "a.example", "a_b", "a."])
def test_a_host_is_an_address_or_a_name(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host", ["", " ", "a b", "1.2.3", "999.0.0.1", "[a]", "::g", "a\n", "-a", "a..b", "http://a", "a/b", "a" * 300]
)
def test_anything_else_is_no_host(host: str) -> None:
    assert not is_host(host)
