"""The server refuses requests from pages of other sites, at every endpoint."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from loopback import PATIENCE
from wire_tools import KEY, USER

if TYPE_CHECKING:
    from wire_tools import Parrot

CHAT = {"model": KEY, "messages": USER}
JSON = "application/json"


def post(url: str, path: str, headers: dict[str, str]) -> tuple[int, object]:
    with closing(http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)) as connection:
        connection.request("POST", path, json.dumps(CHAT), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/v1/chat", "/api/v1/models/load", "/v1/nothing"],
)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": JSON, "Host": "rebound.evil.example"}, 400),
        ({"Content-Type": JSON, "Origin": "https://evil.example"}, 403),
        ({"Content-Type": JSON, "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_page_of_another_site_is_refused_in_the_form_of_the_endpoint(
    url: str, parrot: Parrot, path: str, headers: dict[str, str], status: int
) -> None:
    got, body = post(url, path, headers)
    assert got == status
    assert isinstance(body, dict)
    assert body["error"]
    assert parrot.jobs == []


def test_programs_and_the_server_s_own_pages_are_answered(url: str) -> None:
    for headers in ({}, {"Origin": url, "Sec-Fetch-Site": "same-origin"}, {"Host": "localhost"}):
        assert post(url, "/v1/chat/completions", {"Content-Type": JSON, **headers})[0] == 200
