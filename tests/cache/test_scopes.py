"""Who sees whose answers: nobody those of another scope."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asking import alm
from lmdeck._secret import Secret
from lmdeck._transport import WireRequest
from lmdeck.cache import Cache, CacheControl, request_key
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.received_requests import SentRequest

ASKED = CacheControl(max_age=60)
TEXT = st.text(max_size=6)
HEADERS = st.dictionaries(
    st.sampled_from(["X-User", "Cookie", "X-Api-Key", "X-Team"]), st.sampled_from(["a", "b", "a,b"])
)
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "n"]), "messages": st.lists(TEXT, max_size=2)},
    optional={"temperature": st.sampled_from([0, 0.5]), "seed": st.sampled_from([1, 2]), "stream": st.booleans()},
)
REQUESTS = st.builds(
    lambda **parts: parts,
    url=st.sampled_from(["http://a:1234/v1/chat/completions", "http://b:1234/v1/chat/completions", "http://a:1234/v1/embeddings"]),
    token=st.sampled_from([None, "one", "two"]),
    headers=HEADERS,
    scope=st.sampled_from(["", "alice", "bob"]),
    body=BODIES,
)  # fmt: skip


def key(parts: dict[str, Any]) -> bytes | None:
    token = parts["token"]
    request = WireRequest(
        method="POST",
        url=parts["url"],
        body=msgspec.json.encode(parts["body"]),
        headers={"X-Request-Id": "req_1", **parts["headers"]},
        api_token=None if token is None else Secret(token),
    )
    return request_key(request, ASKED, parts["scope"])


@settings(max_examples=150)
@given(one=REQUESTS, other=REQUESTS)
def test_equal_keys_are_equal_requests_of_one_scope(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Server, token, identifying headers, scope and body: where one differs, the key does."""
    assert (key(one) == key(other)) == (
        msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    )
    assert key(one) is not None


@given(parts=REQUESTS, request_id=TEXT, agent=st.sampled_from(["x", "y"]), user=st.sampled_from(["", "u"]))
def test_what_does_not_change_an_answer_is_not_in_the_key(
    parts: dict[str, Any], request_id: str, agent: str, user: str
) -> None:
    body = dict(reversed(parts["body"].items())) | ({"user": user, "ttl": 5} if user else {})
    headers = {**parts["headers"], "User-Agent": agent, "Cache-Control": "max-age=60", "traceparent": request_id}
    assert key({**parts, "body": body, "headers": headers}) == key(parts)


def test_the_order_inside_of_a_schema_counts() -> None:
    """It reaches the prompt, and so the answer."""
    parts = {"url": "http://a/v1/embeddings", "token": None, "headers": {}, "scope": ""}
    one = key({**parts, "body": {"tools": [{"a": 1, "b": 2}]}})
    assert one != key({**parts, "body": {"tools": [{"b": 2, "a": 1}]}})


@settings(max_examples=10)
@given(asked=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans()), min_size=2, max_size=12))
def test_no_answer_of_one_scope_reaches_another(asked: list[tuple[str, str, bool]]) -> None:
    """Clients with tokens and headers of their own over one cache, at once: each gets the answer to its own credentials."""
    cache = Cache.open("memory:")

    def own(request: SentRequest) -> str:
        return f"for {request.headers.get('x-user')}"

    async def ask(fake: FakeLMStudio, user: str, question: str, streamed: bool) -> tuple[str, str]:
        async with alm(fake.base_url, cache=cache, api_token=f"token-{user}", headers={"X-User": user}) as client:
            chat = client.chat().user(question).with_options(temperature=0)
            reply = await (chat.stream().until_done() if streamed else chat.send())
            return user, reply.content

    async def main() -> None:
        async with FakeLMStudio() as fake:
            fake.add_model("m")
            fake.at("/v1/chat/completions").respond(own)
            answers = await asyncio.gather(*(ask(fake, *one) for one in asked))
            for user, content in answers:
                assert content == f"for {user}"
            assert sum(one.wants_answer for one in fake.requests) == len(set(asked))

    asyncio.run(main())


CHAT, RESPONSES, NATIVE, MESSAGES = "/v1/chat/completions", "/v1/responses", "/api/v1/chat", "/v1/messages"


@pytest.mark.parametrize(
    ("path", "body", "header", "is_cached"),
    [
        (CHAT, {"seed": 0}, "", True),
        (CHAT, {"seed": -1}, "", False),
        (CHAT, {"seed": 0xFFFFFFFF}, "", False),
        (CHAT, {"seed": "x"}, "", False),
        (CHAT, {"seed": -1, "temperature": 0}, "", True),
        (CHAT, {"seed": -1}, "max-age=60", True),
        (CHAT, {"temperature": False}, "", False),
        (CHAT, {"temperature": 0, "tools": [{"type": "function", "function": {"name": "f"}}]}, "", True),
        (RESPONSES, {"temperature": 0, "store": False}, "", True),
        (RESPONSES, {"temperature": 0, "store": False, "tools": [{"type": "mcp", "server_url": "x"}]}, "", False),
        (NATIVE, {"temperature": 0, "store": False, "integrations": []}, "", True),
        (NATIVE, {"temperature": 0, "store": False, "integrations": ["mcp/x"]}, "", False),
        (NATIVE, {"temperature": 0, "store": False, "integrations": ["mcp/x"]}, "max-age=60", False),
        (MESSAGES, {"temperature": 0, "tools": [{"name": "f", "input_schema": {}}]}, "", True),
        (MESSAGES, {"temperature": 0, "tools": [{"type": "web_search_20250305", "name": "w"}]}, "", False),
        (MESSAGES, {"temperature": 0, "mcp_servers": [{"url": "x"}]}, "", False),
    ],
)
def test_what_may_find_something_else_next_time_is_not_cached(
    path: str, body: dict[str, Any], header: str, is_cached: bool
) -> None:
    """A random seed, and tools that the server runs: those are not cached even on request."""
    request = WireRequest(method="POST", url=f"http://a{path}", body=msgspec.json.encode(body), headers={})
    assert (request_key(request, CacheControl.parse(header)) is not None) == is_cached


@pytest.mark.parametrize(
    ("header", "directives"),
    [
        ("max-age=99999999999", CacheControl(max_age=99999999999.0)),
        ("max-age=60, max-age=600", CacheControl(max_age=60.0)),
        ("max-age=600, max-age=60", CacheControl(max_age=60.0)),
        ("max-age=-5", CacheControl(max_age=0.0, no_cache=True)),
        ("max-age=\u0663", CacheControl(max_age=0.0, no_cache=True)),
        ("max-age", CacheControl(max_age=0.0, no_cache=True)),
        (
            ', ,NO-STORE ,only-if-cached, max-age = "60",x=1',
            CacheControl(max_age=60.0, no_store=True, only_if_cached=True),
        ),
    ],
)
def test_forms_of_cache_control(header: str, directives: CacheControl) -> None:
    """Large ages are large, and the least one counts (RFC 9111, sections 1.2.2 and 4.2.1)."""
    assert CacheControl.parse(header) == directives
