"""Keys at the door of the gateway: who is let in, with what limits, and what is stored afterwards."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lmdeck._usage_store import GatewayStore, KeyLimits, day_of, open_store
from lmdeck.errors import ConfigurationError, LMStudioError, ModelCrashedError
from lmdeck.gateway.admission import AdmissionRefused, AdmissionRequest, RequestOutcome
from lmdeck.gateway.key_admission import KeyAdmission
from lmdeck.gateway.keys import key_in, new_key
from lmdeck.relay.errors import anthropic_error, error_headers, openai_error, status_of

pytestmark = pytest.mark.usefixtures("one_day")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'gateway.db'}"


@pytest.fixture
async def admission(url: str) -> AsyncIterator[KeyAdmission]:
    opened = KeyAdmission(url)
    await opened.start()
    yield opened
    await opened.aclose()


@pytest.fixture
def create(url: str) -> Callable[..., str]:
    """Create a key as the command does: in another process's connection."""

    def create(name: str = "alice", **more: Any) -> str:
        secret, key = new_key(name, **more)
        with open_store(url) as store:
            store.add_key(key)
        return secret

    return create


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def an_ask(model: str = "qwen3-4b", tokens: int = 100, id_: str = "r1") -> AdmissionRequest:
    return AdmissionRequest(request_id=id_, endpoint="chat", model=model, tokens=tokens)


def an_outcome(id_: str = "r1", prompt: int = 10, completion: int = 5, **more: Any) -> RequestOutcome:
    return RequestOutcome(request_id=id_, started_at=time.time(), endpoint="chat", model="qwen3-4b", host="gpu1", status=200,
                   prompt_tokens=prompt, completion_tokens=completion, **more)  # fmt: skip


async def refusal(waited_for: Any) -> AdmissionRefused:
    with pytest.raises(AdmissionRefused) as caught:
        await waited_for
    return caught.value


# --- who is let in --------------------------------------------------------------------------------------------------------


async def test_a_key_is_recognised_in_the_headers_of_all_clients(
    admission: KeyAdmission, create: Callable[..., str]
) -> None:
    """OpenAI's clients send a bearer token, Anthropic's `x-api-key`, and some both."""
    secret = create()
    for headers in (
        bearer(secret),
        {"authorization": f"bearer  {secret} "},
        {"x-api-key": secret},
        {"authorization": "Bearer lm-studio", "x-api-key": secret},
        {"authorization": f"Bearer {secret}", "x-api-key": "placeholder"},
    ):
        assert (await admission.authenticate(headers)).name == "alice", headers


async def test_a_new_key_works_at_once_and_a_revoked_one_ends(
    admission: KeyAdmission, create: Callable[..., str], url: str
) -> None:
    """The command writes to the store while the gateway runs."""
    secret = create()
    assert (await admission.authenticate(bearer(secret))).name == "alice"
    with open_store(url) as store:
        store.revoke_key("alice")
    for _ in range(1200):
        if await is_refused(admission, secret):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the revoked key still works")


async def is_refused(admission: KeyAdmission, secret: str) -> bool:
    try:
        await admission.authenticate(bearer(secret))
    except AdmissionRefused as refused:
        return refused.error.message.endswith("is unknown or revoked.")
    return False


async def test_an_invalid_key_is_refused_with_a_message(admission: KeyAdmission, create: Callable[..., str]) -> None:
    """The refusal has the status, type and code of both formats, and not the key."""
    secret = create()
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for headers, sentence in (
        ({}, "No API key was sent."),
        (bearer("sk-something"), "not a key of this gateway"),
        (bearer(wrong), "unknown or revoked"),
        (bearer(secret + "\u00e9"), "not a key of this gateway"),
        ({"authorization": "Basic abc"}, "No API key was sent."),
        ({"x-api-key": "x" * 100_000}, "not a key of this gateway"),
        (bearer(create("late", expires_in=1.0, now=time.time() - 10)), "has expired"),
    ):
        refused = await refusal(admission.authenticate(headers))
        assert sentence in refused.error.message
        assert status_of(refused.error) == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        body = openai_error(refused.error)["error"]
        assert (body["type"], body["code"]) == ("authentication_error", "invalid_api_key")
        assert anthropic_error(refused.error)["error"]["type"] == "authentication_error"
        assert wrong not in str(refused.error)
        assert secret not in str(refused.error)


async def test_a_wrong_key_is_refused_even_if_none_is_required(url: str, create: Callable[..., str]) -> None:
    """A placeholder is nobody's; a key that was meant as one is checked, and has its limits."""
    secret = create("bob", models=("qwen*",))
    admission = KeyAdmission(url, required=False)
    await admission.start()
    for headers in ({}, bearer("lm-studio"), {"x-api-key": "sk-ant-none"}):
        principal = await admission.authenticate(headers)
        assert (principal.name, principal.may_use("anything")) == ("", True)
    holder = await admission.authenticate(bearer(secret))
    assert (holder.name, holder.may_use("gemma")) == ("bob", False)
    await refusal(admission.authenticate(bearer("lmk_" + "A" * 43)))
    await (await admission.admit(principal, an_ask())).settle(an_outcome())
    assert admission.store.usage(["key"])[0].group == {"key": ""}
    await admission.aclose()


async def test_a_key_may_use_the_models_of_its_patterns(admission: KeyAdmission, create: Callable[..., str]) -> None:
    """A publisher may stand before the name; others are refused in both formats."""
    holder = await admission.authenticate(bearer(create(models=("qwen*", "*/gemma-3-4b"))))
    for model in ("qwen/qwen3-4b", "qwen3-4b", "google/gemma-3-4b"):
        assert await admission.admit(holder, an_ask(model))
    refused = await refusal(admission.admit(holder, an_ask("gpt-oss-20b")))
    assert status_of(refused.error) == 403
    assert "'alice' may not use the model 'gpt-oss-20b'" in refused.error.message
    assert openai_error(refused.error)["error"]["code"] == "model_not_allowed"
    unnamed = await refusal(admission.admit(holder, an_ask("")))
    assert "may not use requests that name no model" in unnamed.error.message
    assert anthropic_error(refused.error)["error"]["type"] == "permission_error"


async def test_a_reached_limit_is_a_429_with_retry_after(admission: KeyAdmission, create: Callable[..., str]) -> None:
    """It has the headers of OpenAI's limits, as an admitted request has."""
    holder = await admission.authenticate(bearer(create(limits=KeyLimits(requests_per_minute=1, tokens_per_day=500))))
    lease = await admission.admit(holder, an_ask())
    assert lease.headers == {
        "x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": lease.headers["x-ratelimit-reset-requests"],
        "x-ratelimit-limit-tokens": "500", "x-ratelimit-remaining-tokens": "400", "x-ratelimit-reset-tokens": "0s",
    }  # fmt: skip
    refused = await refusal(admission.admit(holder, an_ask()))
    assert status_of(refused.error) == 429
    assert refused.headers["x-ratelimit-limit-tokens"] == "500"
    assert error_headers(refused.error)["retry-after"].isdigit()
    assert openai_error(refused.error)["error"]["type"] == "rate_limit_error"
    assert anthropic_error(refused.error)["error"]["type"] == "rate_limit_error"


# --- what is stored -------------------------------------------------------------------------------------------------------


async def test_when_settle_returns_the_request_is_committed(
    admission: KeyAdmission, create: Callable[..., str], url: str
) -> None:
    """Another connection sees it: it would survive kill -9."""
    holder = await admission.authenticate(bearer(create()))
    lease = await admission.admit(holder, an_ask())
    await lease.settle(
        an_outcome(
            queue_seconds=0.5,
            first_token_seconds=0.75,
            seconds=2.0,
            finish_reason="stop",
            problems=Counter({("repaired", "hermes-json"): 1}),
        )
    )
    await lease.settle(an_outcome("r2"))  # a second call does nothing
    with sqlite3.connect(url.removeprefix("sqlite:///")) as other:
        rows = other.execute(
            "SELECT id, key, prompt_tokens, completion_tokens, queued, first_token FROM lmdeck_requests"
        ).fetchall()
    other.close()
    assert rows == [("r1", "alice", 10, 5, 0.5, 0.75)]


async def test_a_cancelled_request_is_stored_and_its_slot_is_free(
    admission: KeyAdmission, create: Callable[..., str]
) -> None:
    """A client that leaves cancels the task that is settling."""
    holder = await admission.authenticate(bearer(create(limits=KeyLimits(parallel=1))))
    lease = await admission.admit(holder, an_ask())
    settling = asyncio.create_task(lease.settle(an_outcome()))
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    for _ in range(1000):
        if admission.store.requests(since=0):
            break
        await asyncio.sleep(0.01)
    assert [record.id for record in admission.store.requests(since=0)] == ["r1"]
    assert await admission.admit(holder, an_ask())


async def test_an_answer_from_the_cache_costs_no_tokens(admission: KeyAdmission, create: Callable[..., str]) -> None:
    """It is a request, and its row has the tokens that it would have cost."""
    holder = await admission.authenticate(bearer(create(limits=KeyLimits(tokens_per_day=100))))
    for n in range(5):
        lease = await admission.admit(holder, an_ask(tokens=0, id_=f"r{n}"))
        await lease.settle(an_outcome(f"r{n}", prompt=80, completion=20, cache="hit"))
    (row,) = admission.store.usage(["key"])
    assert (row.requests, row.tokens) == (5, 0)
    assert admission.store.requests(since=0)[0].usage.prompt_tokens == 80


async def test_a_failure_is_stored_with_what_to_do(admission: KeyAdmission, create: Callable[..., str]) -> None:
    """`lmdeck errors` shows the hint of each failure."""
    holder = await admission.authenticate(bearer(create()))
    error: LMStudioError = ModelCrashedError("The model has crashed.", status=500)
    lease = await admission.admit(holder, an_ask())
    await lease.settle(an_outcome(error="ModelCrashedError", failure=error, seconds=1.5, cassette="failures/r1.jsonl"))
    (failure,) = admission.store.failures()
    assert (failure.kind, failure.key, failure.host, failure.model) == (
        "ModelCrashedError",
        "alice",
        "gpu1",
        "qwen3-4b",
    )
    assert (failure.id, failure.status, failure.seconds, failure.cassette) == ("r1", 500, 1.5, "failures/r1.jsonl")
    assert "Load the model again" in failure.hint
    assert admission.store.usage([])[0].failures == 1


async def test_the_budget_of_the_day_continues_after_a_restart(url: str, create: Callable[..., str]) -> None:
    """It is read from the usage, so that ending the process wins nothing."""
    secret = create(limits=KeyLimits(tokens_per_day=100))
    for n, is_refused in enumerate((False, False, True)):
        admission = KeyAdmission(url)
        await admission.start()
        holder = await admission.authenticate(bearer(secret))
        if is_refused:
            refused = await refusal(admission.admit(holder, an_ask()))
            assert "100 tokens a day (UTC)" in refused.error.message
        else:
            await (await admission.admit(holder, an_ask(tokens=0))).settle(
                an_outcome(f"r{n}", prompt=30, completion=25)
            )
        await admission.aclose()
    with open_store(url) as store:
        assert store.tokens_of_day(day_of(time.time())) == {"alice": 110}


async def test_the_budget_of_the_day_counts_what_the_name_used_before_it_had_one(
    admission: KeyAdmission, create: Callable[..., str], url: str
) -> None:
    """A key that is replaced by one with a limit."""
    holder = await admission.authenticate(bearer(create()))
    await (await admission.admit(holder, an_ask())).settle(an_outcome(prompt=50, completion=20))
    with open_store(url) as store:
        store.revoke_key("alice")
    holder = await admission.authenticate(bearer(create(limits=KeyLimits(tokens_per_day=60))))
    refused = await refusal(admission.admit(holder, an_ask("r2")))
    assert "60 tokens a day (UTC)." in refused.error.message


async def test_a_busy_store_does_not_block_answers(
    admission: KeyAdmission,
    create: Callable[..., str],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The answer ends, and its usage is written when the store is free."""
    monkeypatch.setattr("lmdeck.gateway.key_admission.COMMIT_SECONDS", 0.05)
    holder = await admission.authenticate(bearer(create()))
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    lease = await admission.admit(holder, an_ask())
    with caplog.at_level(logging.WARNING, "lmdeck.gateway"):
        await lease.settle(an_outcome())
        await (await admission.admit(holder, an_ask())).settle(an_outcome("r2"))
    assert caplog.text.count("The store is slow") == 1
    other.execute("ROLLBACK")
    other.close()
    for _ in range(1000):
        if len(admission.store.requests(since=0)) == 2:
            break
        await asyncio.sleep(0.01)
    assert admission.store.usage([])[0].requests == 2


async def test_a_budget_in_redis_is_shared_by_two_gateways(
    url: str, create: Callable[..., str], redis_address: str
) -> None:
    """They have one store and one Redis."""
    secret = create(f"alice {time.time_ns()}", limits=KeyLimits(tokens_per_day=100, parallel=1))
    one, two = (
        KeyAdmission(url, limits_url=redis_address, workers=2),
        KeyAdmission(url, limits_url=redis_address, workers=2),
    )
    await one.start()
    await two.start()
    holder, same = await one.authenticate(bearer(secret)), await two.authenticate(bearer(secret))
    lease = await one.admit(holder, an_ask())
    assert "1 requests running" in (await refusal(two.admit(same, an_ask()))).error.message
    await lease.settle(an_outcome(prompt=90, completion=20))
    assert "100 tokens a day" in (await refusal(two.admit(same, an_ask()))).error.message
    await one.aclose()
    await two.aclose()


# --- at the start ---------------------------------------------------------------------------------------------------------


async def test_workers_that_count_separately_are_refused(url: str, create: Callable[..., str]) -> None:
    """Each would let a key have its whole limit."""
    await_started = KeyAdmission(url, workers=4)
    await await_started.start()  # no key has a limit yet
    await await_started.aclose()
    create(limits=KeyLimits(requests_per_minute=5))
    with pytest.raises(ConfigurationError, match="Several workers would each count the limits of the key 'alice'"):
        await KeyAdmission(url, workers=4).start()


def test_a_key_is_random_and_only_its_digest_is_kept(url: str) -> None:
    """A key has 32 random bytes after a beginning that people recognise."""
    made = [new_key(f"key {n}") for n in range(100)]
    assert len({secret for secret, _ in made}) == 100
    secret, key = made[0]
    assert secret.startswith(key.start)
    assert len(secret) == 47
    assert len(key.start) == 8
    assert secret[8:] not in repr(key)
    assert key_in(bearer(secret)) == secret
    store: GatewayStore
    with open_store(url) as store:
        store.add_key(key)
    assert secret.encode() not in b"".join(
        path.read_bytes() for path in Path(url.removeprefix("sqlite:///")).parent.iterdir()
    )
    for name in ("", " ", "a" * 65, "a\nb", "../x", "a\u202eb", "-x", "a/b"):
        with pytest.raises(ConfigurationError, match="is not a valid name of a key"):
            new_key(name)
