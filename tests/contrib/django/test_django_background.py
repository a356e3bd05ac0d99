"""Runs in the background, replies in the cache, and the helpers for tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from celery import Celery
from django.conf import settings
from django.core.cache import cache
from django.test import SimpleTestCase, TestCase, override_settings
from far_end import answer, project

from asking import last_asked
from lmdeck import ServerUnreachableError
from lmdeck.contrib.django import alm, lm
from lmdeck.contrib.django.caching import acached_reply, cached_reply
from lmdeck.contrib.django.celery import run_chat as celery_run_chat
from lmdeck.contrib.django.history.models import Conversation
from lmdeck.contrib.django.tasks import run_chat
from lmdeck.contrib.django.testing import LMDeckTestMixin, override_lmdeck

TASKS = "django.tasks" if find_spec("django.tasks") else "django_tasks"
HI = [{"role": "user", "content": "Hi"}]


class Background(LMDeckTestMixin, TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fake.respond(answer).repeat()

    def test_djangos_tasks_run_a_chat(self) -> None:
        result = run_chat.enqueue(HI)
        assert result.status == "SUCCESSFUL"
        assert result.return_value["content"]["message"] == "Hello."
        assert result.return_value["messages"] == [{"role": "assistant", "content": "Hello."}]

    def test_a_conversation_is_gone_on_with(self) -> None:
        conversation = Conversation.objects.create()
        conversation.add_user("tool")
        result = run_chat.enqueue(conversation=str(conversation.pk), tools=["get_weather"])
        assert '"temperature":21' in result.return_value["content"]["message"].replace(" ", "")
        assert [message.role for message in conversation.history()] == ["user", "assistant", "tool", "assistant"]

    def test_celery_runs_it_too(self) -> None:
        Celery("tests", set_as_current=True).conf.task_always_eager = True
        assert celery_run_chat.delay(HI, options={"max_tokens": 9}).get()["finish_reason"] == "stop"
        assert last_asked(self.fake).body["max_tokens"] == 9
        assert celery_run_chat.name == "lmdeck.run_chat"

    def test_a_failed_run_is_a_failed_task(self) -> None:
        with override_lmdeck(BASE_URL="http://127.0.0.1:9"):
            with self.assertLogs(TASKS, "ERROR"):
                assert run_chat.enqueue(HI).status == "FAILED"
            with pytest.raises(ServerUnreachableError):
                run_chat.call(HI)


def test_without_a_framework_queueing_says_what_is_missing() -> None:
    """This runs in a separate process, where neither framework can be imported."""
    code = """if True:
        import sys
        sys.modules.update({"django_tasks": None, "django.tasks": None, "celery": None})
        import importlib.util
        find = importlib.util.find_spec
        gone = ("django_tasks", "django.tasks", "celery")
        importlib.util.find_spec = lambda name, *more: None if name in gone else find(name, *more)
        from django.conf import settings
        settings.configure(INSTALLED_APPS=["lmdeck.contrib.django"])
        import django
        django.setup()
        from lmdeck.contrib.django.tasks import run_chat
        try:
            run_chat.enqueue([])
        except django.core.exceptions.ImproperlyConfigured as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install django-tasks" in done.stdout, done.stderr


class Caching(SimpleTestCase):
    def setUp(self) -> None:
        cache.clear()

    def test_the_same_chat_is_asked_once(self) -> None:
        with project() as fake:
            chat = lm.chat().user("Hi").with_options(temperature=0)
            first, second = cached_reply(chat), cached_reply(chat)
            assert first.content == second.content == "Hello."
            assert (first.cache, second.cache) == ("miss", "hit")
            fake.assert_call_count(1)
            cached_reply(lm.chat().user("Hi").with_options(temperature=1))
            cached_reply(lm.chat("other").user("Hi").with_options(temperature=0))
            fake.assert_call_count(3)
            lm.close()

    def test_answers_of_other_tokens_are_not_used(self) -> None:
        with project() as fake:
            for token in ("one", "two", "one"):
                with override_lmdeck(API_TOKEN=token, BASE_URL=fake.base_url):
                    cached_reply(lm.chat("m").user("Hi"))
                    lm.close()
            fake.assert_call_count(2)

    def test_a_failed_answer_is_not_kept(self) -> None:
        with project() as fake:
            fake.when(lambda _: True).error(500, "no").respond(answer)
            with pytest.raises(Exception, match="no"):
                cached_reply(lm.chat().user("Hi"))
            assert cached_reply(lm.chat().user("Hi")).content == "Hello."
            lm.close()

    def test_the_same_awaited_shares_the_cache(self) -> None:
        async def ask() -> str:
            return (await acached_reply(alm.chat().user("Hi"))).content

        with project() as fake:
            assert asyncio.run(ask()) == asyncio.run(ask()) == "Hello."
            assert cached_reply(lm.chat().user("Hi")).content == "Hello."
            fake.assert_call_count(1)


@pytest.fixture(autouse=True)
def settings_as_they_were() -> Iterator[None]:
    before = settings.LMDECK
    yield
    assert before == settings.LMDECK


@override_lmdeck(TIMEOUT=3)
class Overriding(SimpleTestCase):
    def test_a_class_has_other_keys_and_keeps_the_rest(self) -> None:
        assert lm.settings.timeout == 3
        assert lm.settings.model == "m"

    @override_lmdeck(TIMEOUT=4)
    def test_a_test_too(self) -> None:
        assert lm.settings.timeout == 4
        with override_lmdeck(TIMEOUT=5), override_lmdeck(PORT=5):
            assert (lm.settings.timeout, lm.settings.base_url) == (5, "http://127.0.0.1:9")
        assert lm.settings.timeout == 4


class Faking(LMDeckTestMixin, SimpleTestCase):
    def test_each_test_has_a_fake(self) -> None:
        self.fake.reply("Hello")
        assert lm.chat().user("Why is the sky blue?").send().content == "Hello"
        self.fake.assert_sent(lambda request: "sky" in request.last_user)

    def test_the_settings_lead_to_it(self) -> None:
        assert lm.base_url == self.fake.base_url

    @override_settings(LMDECK={"HOST": "elsewhere"})
    def test_settings_of_a_test_come_after_it(self) -> None:
        assert lm.settings.host == "elsewhere"
