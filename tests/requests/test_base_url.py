"""Base URLs: every form that people use leads to the right paths, and what is none is told."""

from __future__ import annotations

import pytest

from lmdeck._requests.base_url import BaseURL
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError

LOCAL = "http://localhost:1234"


@pytest.mark.parametrize(
    ("url", "root"),
    [
        *[
            (f"{LOCAL}{tail}", LOCAL)
            for tail in (
                "", "/", "//", "/v1", "/v1/", "/v1//", "//v1", "/api/v1", "/api/v1/", "/api/v0", "/api/v0/", "/api//v1",
                "/v1/chat/completions", "/v1/chat/completions/", "/v1/completions", "/v1/embeddings", "/v1/models",
                "/v1/responses",
                "/v1/messages", "/api/v1/chat", "/api/v1/models", "/api/v0/models", "/api/v0/chat/completions",
            )
        ],
        ("localhost:1234", LOCAL),
        ("localhost:1234/v1", LOCAL),
        ("localhost", "http://localhost"),
        ("HTTP://localhost:1234/v1", LOCAL),
        ("http://localhost:1234/V1", LOCAL),
        ("http://gpu-box", "http://gpu-box"),
        ("https://gpu-box/v1", "https://gpu-box"),
        ("https://gpu-box:8443/", "https://gpu-box:8443"),
        ("https://proxy/lm", "https://proxy/lm"),
        ("https://proxy/lm/", "https://proxy/lm"),
        ("https://proxy/lm/v1", "https://proxy/lm"),
        ("https://proxy//lm//api/v1//", "https://proxy/lm"),
        ("https://proxy/v1/lm", "https://proxy/v1/lm"),
        ("https://proxy/lm/v1/v1", "https://proxy/lm/v1"),
        ("https://proxy/av1", "https://proxy/av1"),
        ("http://192.168.1.5:1234/v1", "http://192.168.1.5:1234"),
        ("http://[::1]:1234/v1", "http://[::1]:1234"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("http://[fe80::1]/", "http://[fe80::1]"),
        ("http://localhost:65535", "http://localhost:65535"),
    ],
)  # fmt: skip
def test_every_form_leads_to_the_server(url: str, root: str) -> None:
    """A trailing slash, the API's prefix, or a whole endpoint do not matter; a proxy's prefix does."""
    address = BaseURL.from_settings(Settings.resolve({"base_url": url}, environ={}))
    assert address == BaseURL.from_url(url) == BaseURL(root)


@pytest.mark.parametrize(
    ("host", "port", "root"),
    [
        ("localhost", 1234, LOCAL),
        ("gpu-box.lan", 80, "http://gpu-box.lan:80"),
        ("::1", 1234, "http://[::1]:1234"),
        ("[::1]", 1234, "http://[::1]:1234"),
        ("127.0.0.1", 1, "http://127.0.0.1:1"),
    ],
)
def test_host_and_port_are_an_address(host: str, port: int, root: str) -> None:
    """An IPv6 host is accepted with brackets and without."""
    assert BaseURL.from_settings(Settings.resolve({"host": host, "port": port}, environ={})).root == root


def test_the_base_url_wins_over_host_and_port_beside_it() -> None:
    """It says more."""
    assert BaseURL.from_settings(Settings(host="other", port=5, base_url=LOCAL)).root == LOCAL


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://", "no host"),
        ("http:///v1", "no host"),
        (":1234", "no host"),
        ("http://host:0", "no valid port"),
        ("http://host:", "no valid port"),
        ("http:/host:1234", "no valid port"),
        ("http:/host", "no valid port"),
        ("http://host:port", "not a valid URL"),
        ("http://host:70000", "not a valid URL"),
        ("http://host:-1", "not a valid URL"),
        ("http://[::1", "not a valid URL"),
        ("http://host/v1?key=S3cr3t", "query"),
        ("http://host/v1#top", "fragment"),
        ("http://me:S3cr3t@host", "user name or password"),
        ("http://me@host", "user name or password"),
        ("me:S3cr3t@host:1234", "user name or password"),
        ("http://me:S3#cr3t@host", "not a valid URL"),
    ],
)
def test_what_is_no_address_is_reported(url: str, word: str) -> None:
    """The error shows a right address or the setting to use, and no secrets."""
    with pytest.raises(ConfigurationError, match=word) as caught:
        BaseURL.from_url(url)
    assert "http://localhost:1234" in caught.value.hint or "api_token" in caught.value.hint
    assert "S3" not in f"{caught.value} {caught.value.__cause__}"
