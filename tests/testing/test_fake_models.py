"""The fake's models and its other endpoints, as lmdeck's client sees them."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from lmdeck import (
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
)
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE

MODEL = "qwen2.5-7b-instruct"


def test_models_are_listed_with_their_state() -> None:
    with FakeLMStudio() as fake:
        fake.add_model("big", loaded=False, max_context_length=131072)
        listed = {model.key: model for model in fake.client().models.list()}
        assert listed[MODEL].loaded
        assert not listed["big"].loaded
        assert listed["text-embedding-nomic-embed-text-v1.5"].type == "embedding"


def test_a_model_is_loaded_by_the_first_request_and_reports_its_progress() -> None:
    with FakeLMStudio() as fake:
        fake.add_model("big", loaded=False, load_seconds=0.2)
        fake.reply("Here I am.").reply("Still here.")
        conversation = fake.client().conversation("big")
        with conversation.stream("Hi") as stream:
            names = [type(chunk.event).__name__ for chunk in stream if chunk.event is not None]
        assert names[:3] == ["ChatStart", "ModelLoadStart", "ModelLoadProgressEvent"]
        assert names.count("ModelLoadProgressEvent") == 5
        assert (stream.reply.stats.model_load_time or 0) >= 0.2
        conversation.send("And now?")
        assert fake.model("big").loads == 1


def test_two_requests_load_a_model_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with FakeLMStudio(strict=False) as fake, fake.client(model="big") as lm, ThreadPoolExecutor() as pool:
        fake.add_model("big", loaded=False, load_seconds=0.1)
        list(pool.map(lambda text: lm.chat().user(text).send(), "abcd"))
        assert fake.model("big").loads == 1


def test_loading_may_be_refused_or_turned_off() -> None:
    with FakeLMStudio() as fake:
        fake.add_model(
            "huge", loaded=False, refuses_to_load="Model loading aborted due to insufficient system resources."
        )
        fake.reply("never")
        with pytest.raises(ModelLoadError):
            fake.client(retry_attempts=1).chat("huge").user("a").send()
        fake.reset()
        fake.turn_off_jit()
        fake.evict(MODEL)
        fake.reply("never")
        with pytest.raises(NoModelLoadedError):
            fake.client(retry_attempts=1).chat(MODEL).user("a").send()


def test_without_just_in_time_loading_openais_list_has_loaded_models_alone() -> None:
    with FakeLMStudio() as fake:
        fake.add_model("big", loaded=False)
        listed = openai_names(fake)
        fake.turn_off_jit()
        assert listed - openai_names(fake) == {"big"}
        assert MODEL in openai_names(fake)
        assert fake.client().models.get("big").key == "big"


def openai_names(fake: FakeLMStudio) -> set[str]:
    with urllib.request.urlopen(f"{fake.base_url}/v1/models") as response:
        return {model["id"] for model in json.load(response)["data"]}


def test_a_load_takes_as_long_as_was_set() -> None:
    with FakeLMStudio() as fake, fake.client() as lm:
        model = fake.add_model("big", loaded=False, load_seconds=0.05, size_bytes=5_000_000_000)
        assert lm.models.load("big").load_time == 0.05
        assert lm.models.get("big").size_bytes == model.size_bytes == 5_000_000_000


def test_load_unload_and_a_second_instance() -> None:
    with FakeLMStudio() as fake, fake.client() as lm:
        assert lm.models.ensure_loaded(MODEL).already_loaded
        second = lm.models.load(MODEL, context_length=16384)
        assert second.instance_id == f"{MODEL}:2"
        assert second.config["context_length"] == 16384
        lm.models.unload(f"{MODEL}:2")
        lm.models.unload(MODEL)
        assert not lm.models.get(MODEL).loaded
        with pytest.raises(ModelNotFoundError):
            lm.models.unload(MODEL)


def test_an_idle_model_is_unloaded() -> None:
    with FakeLMStudio() as fake, fake.client() as lm:
        fake.reply("Hi")
        lm.chat(MODEL).user("a").with_options(ttl=1).send()
        deadline = time.monotonic() + PATIENCE
        while lm.models.get(MODEL).loaded:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_prompt_longer_than_the_context_is_refused_in_lm_studios_words() -> None:
    with FakeLMStudio() as fake:
        fake.reply("never")
        with pytest.raises(ContextLengthError, match="Trying to keep the first"):
            fake.client().chat().user("word " * 5000).send()


def test_answers_wait_for_a_free_slot() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with FakeLMStudio(strict=False, time_to_first_token=0.1) as fake, ThreadPoolExecutor() as pool:
        fake.add_model("narrow", parallel=1)
        with fake.client(model="narrow", max_concurrency=4) as lm:
            began = time.perf_counter()
            list(pool.map(lambda text: lm.chat().user(text).send(), "abc"))
        assert time.perf_counter() - began >= 0.3


def test_a_token_is_asked_for() -> None:
    with FakeLMStudio(api_token="secret") as fake:
        fake.reply("Hi")
        with pytest.raises(AuthenticationError):
            fake.client(api_token="wrong").chat().user("a").send()
        assert fake.client().chat().user("a").send().content == "Hi"


def test_downloads_grow_and_end() -> None:
    with FakeLMStudio() as fake, fake.client() as lm:
        fake.plan_download("ibm/granite-4-micro", total_bytes=900)
        seen: list[int | None] = []
        job = lm.models.download("ibm/granite-4-micro", on_progress=lambda state: seen.append(state.downloaded_bytes))
        assert job.status == "completed"
        assert seen == sorted(seen, key=lambda size: size or 0)
        assert lm.models.download(MODEL).status == "already_downloaded"
        with pytest.raises(ModelNotFoundError):
            lm.models.download("nobody/nothing")


def test_embeddings_are_what_was_scripted_or_depend_on_the_text() -> None:
    with FakeLMStudio() as fake, fake.client() as lm:
        fake.embeds("cat", [1.0, 0.0])
        assert list(lm.embed("cat").vectors[0]) == [1.0, 0.0]
        one, two, again = lm.embed(["a", "b", "a"]).vectors
        assert list(one) == list(again) != list(two)


def test_the_other_endpoints_answer_from_the_same_script() -> None:
    with FakeLMStudio() as fake, fake.client(model=MODEL) as lm:
        fake.reply("from the conversation", reasoning="thinking").reply("from responses").reply("from messages").reply(
            " and on"
        )
        conversation = lm.conversation()
        first = conversation.send("Hi")
        assert (first.content, first.reasoning) == ("from the conversation", "thinking")
        assert lm.responses.create(input="Hi").content == "from responses"
        with lm.messages.stream(messages=[{"role": "user", "content": "Hi"}], max_tokens=9) as stream:
            assert "".join(chunk.content for chunk in stream) == "from messages"
        assert lm.complete("Once").text == " and on"


def test_tools_of_the_server_are_run_by_the_server() -> None:
    with FakeLMStudio() as fake:
        fake.server_tool(
            "model_search", '[{"type":"text","text":"one"}]', then="One model.", provider="huggingface", limit=1
        )
        with fake.client().conversation(MODEL, integrations=["mcp/huggingface"]).stream("Search") as stream:
            names = [type(chunk.event).__name__ for chunk in stream if chunk.event is not None]
        (call,) = stream.reply.server_calls
        assert (call.name, call.arguments) == ("model_search", {"limit": 1})
        assert {"ToolCallStart", "ToolCallArguments", "ToolCallSuccess"} <= set(names)
        assert stream.reply.content == "One model."


def test_a_server_started_anew_has_forgotten_its_answers() -> None:
    with FakeLMStudio() as fake:
        fake.reply("one").reply("two").reply("three")
        conversation = fake.client().conversation(MODEL)
        conversation.send("a")
        fake.forget_answers()
        with pytest.raises(InvalidRequestError, match="recover"):
            conversation.send("b")
        recovering = fake.client().conversation(MODEL, recover=True)
        recovering.send("a")
        fake.forget_answers()
        assert [problem.code for problem in recovering.send("b").problems] == ["history_replayed"]
