"""The chat page: who may ask, what is kept, and what a page shows."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.test import Client, RequestFactory, TestCase, TransactionTestCase, modify_settings
from far_end import answer, project

from asking import last_asked
from lmdeck.contrib.django.guards import rate_limited, seconds_to_wait
from lmdeck.contrib.django.history.models import Conversation, PendingApproval, ToolCall, Usage
from lmdeck.contrib.django.testing import LMDeckTestMixin, override_lmdeck
from lmdeck.contrib.django.views import PageView
from loopback import PATIENCE

HISTORY = "lmdeck.contrib.django.history"


def ask(client: Client, question: Any, path: str = "/chat/ask/", **headers: str) -> Any:
    return client.post(path, json.dumps(question), content_type="application/json", headers=headers)


def told(response: Any) -> list[dict[str, Any]]:
    """Read a streamed response to its end, as a WSGI server does."""
    lines = b"".join(response).splitlines()
    response.close()
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def content(response: Any) -> str:
    return "".join(one["text"] for one in told(response) if one["type"] == "content")


class Asking(LMDeckTestMixin, TransactionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fake.respond(answer).repeat()
        self.user = get_user_model().objects.create_user("ann")
        self.client.force_login(self.user)

    def test_a_conversation_is_kept_and_found_again(self) -> None:
        first = ask(self.client, {"text": "tool"})
        assert "It says" in content(first)
        key = first.headers["X-Conversation"]
        assert content(ask(self.client, {"text": "And now?", "conversation": key})) == "Hello."
        sent = [message["role"] for message in last_asked(self.fake).messages]
        assert sent == ["user", "assistant", "tool", "assistant", "user"]
        (listed,) = self.client.get("/chat/conversations/").json()["conversations"]
        assert (listed["id"], listed["title"]) == (key, "tool")
        shown = self.client.get(f"/chat/conversations/{key}/").json()["messages"]
        assert [message["role"] for message in shown] == ["user", "assistant", "assistant", "user", "assistant"]
        assert shown[1]["calls"][0]["arguments"] == {"city": "Paris"}
        assert json.loads(shown[1]["calls"][0]["content"])["temperature"] == 21

    def test_a_call_waits_for_its_user_and_is_decided_on_once(self) -> None:
        first = ask(self.client, {"text": "tool"}, "/careful/")
        key = first.headers["X-Conversation"]
        (waiting,) = [one for one in told(first) if one["type"] == "approval"]
        (call,) = waiting["calls"]
        shown = self.client.get(f"/chat/conversations/{key}/").json()
        assert shown["paused"] == {"run": waiting["run"], "calls": [call["id"]]}
        assert shown["messages"][-1]["ended"] == "paused"
        assert ToolCall.objects.get().result is None
        boss = get_user_model().objects.create_superuser("boss")
        admin = Client()
        admin.force_login(boss)
        listed = admin.get("/admin/lmdeck_history/pendingapproval/").content.decode()
        assert "get_weather" in listed
        pending = PendingApproval.objects.get()
        assert "Paris" in admin.get(f"/admin/lmdeck_history/pendingapproval/{pending.pk}/change/").content.decode()
        transcript = admin.get(f"/admin/lmdeck_history/conversation/{key}/change/").content.decode()
        assert "Waits for approval" in transcript
        assert "No result." in transcript
        right = {"conversation": key, "run": waiting["run"], "decisions": {call["id"]: True}}
        for wrong, status in [
            ({**right, "decisions": {}}, 400),
            ({**right, "conversation": "x"}, 400),
            ({**right, "conversation": str(uuid.uuid4())}, 404),
            ({**right, "run": "run_0"}, 409),
        ]:
            assert ask(self.client, wrong, "/careful/").status_code == status
        stranger = Client()
        stranger.force_login(get_user_model().objects.create_user("eve"))
        assert ask(stranger, right, "/careful/").status_code == 404
        assert "It says" in content(ask(self.client, right, "/careful/"))
        assert ask(self.client, right, "/careful/").status_code == 409
        shown = self.client.get(f"/chat/conversations/{key}/").json()
        assert shown["paused"] is None
        assert [message["role"] for message in shown["messages"]] == ["user", "assistant", "assistant"]
        assert "temperature" in shown["messages"][1]["calls"][0]["content"]
        assert "ended" not in shown["messages"][1]
        assert Usage.objects.count() == 2

    def test_a_refusal_and_a_new_question(self) -> None:
        first = ask(self.client, {"text": "tool"}, "/careful/")
        key = first.headers["X-Conversation"]
        (waiting,) = [one for one in told(first) if one["type"] == "approval"]
        no = {"conversation": key, "run": waiting["run"], "decisions": {waiting["calls"][0]["id"]: "not now"}}
        assert "not now" in content(ask(self.client, no, "/careful/"))
        assert ToolCall.objects.get().failed
        second = ask(self.client, {"text": "tool", "conversation": key}, "/careful/")
        (waiting,) = [one for one in told(second) if one["type"] == "approval"]
        assert content(ask(self.client, {"text": "Hi", "conversation": key}, "/careful/")) == "Hello."
        late = {**no, "run": waiting["run"], "decisions": {waiting["calls"][0]["id"]: True}}
        assert ask(self.client, late, "/careful/").status_code == 409

    def test_a_visitor_without_a_name_cannot_approve(self) -> None:
        assert ask(Client(), {"text": "tool"}, "/careful/").status_code == 401

    def test_reasoning_is_shown_again(self) -> None:
        key = ask(self.client, {"text": "think"}).headers["X-Conversation"]
        assert self.client.get(f"/chat/conversations/{key}/").json()["messages"] == [
            {"role": "user", "content": "think", "reasoning": "", "calls": []},
        ]
        told(ask(self.client, {"text": "think", "conversation": key}))
        (*_, last) = self.client.get(f"/chat/conversations/{key}/").json()["messages"]
        assert last == {
            "role": "assistant", "content": "It is blue.", "reasoning": "Light is scattered.", "calls": [],
        }  # fmt: skip
        assert "scattered" not in str(last_asked(self.fake).messages)

    def test_another_users_conversation_is_not_found(self) -> None:
        theirs = Conversation.objects.create(user=get_user_model().objects.create_user("ben"))
        assert ask(self.client, {"text": "Hi", "conversation": str(theirs.pk)}).status_code == 404
        for method in (self.client.get, self.client.delete):
            assert method(f"/chat/conversations/{theirs.pk}/").status_code == 404
        assert ask(self.client, {"text": "Hi", "conversation": str(uuid.uuid4())}).status_code == 404
        assert self.client.get("/chat/conversations/").json() == {"conversations": []}
        self.fake.assert_nothing_sent()

    def test_a_conversation_can_be_removed(self) -> None:
        mine = Conversation.objects.create(user=self.user)
        assert self.client.delete(f"/chat/conversations/{mine.pk}/").status_code == 204
        assert not Conversation.objects.exists()

    @modify_settings(INSTALLED_APPS={"remove": [HISTORY]})
    def test_without_the_history_the_page_remembers(self) -> None:
        before = [
            {"role": "user", "content": "I am Ann."},
            {"role": "assistant", "content": "Hi."},
            {"role": "system", "content": "x"},
        ]
        response = ask(self.client, {"text": "Who am I?", "messages": before})
        assert content(response) == "Hello."
        assert "X-Conversation" not in response.headers
        sent = last_asked(self.fake).messages
        assert [message["role"] for message in sent] == ["user", "assistant", "user", "user"]
        assert self.client.get("/chat/conversations/").json() == {"conversations": []}

    def test_the_settings_say_what_a_chat_begins_with(self) -> None:
        with override_lmdeck(SYSTEM="Be brief.", TOOLS=["get_weather"]):
            told(ask(self.client, {"text": "Hi"}))
        sent = last_asked(self.fake)
        assert sent.messages[0] == {"role": "system", "content": "Be brief."}
        assert sent.tools == ["get_weather"]

    def test_a_view_of_ones_own_may_say_otherwise_and_be_open(self) -> None:
        assert content(ask(Client(), {"text": "Hi"}, "/pirate/")) == "Hello."
        sent = last_asked(self.fake)
        assert sent.system == "Talk like a pirate."
        assert sent.body["temperature"] == 0
        assert "tools" not in sent.body
        assert not Conversation.objects.exists()

    def test_a_response_that_is_left_stops_the_model_and_keeps_what_came(self) -> None:
        response = ask(self.client, {"text": "endless"})
        pieces = iter(response)
        while b'"content"' not in next(pieces):
            continue
        response.close()
        self.fake.wait_until_idle(PATIENCE)
        (message,) = Conversation.objects.get().messages.filter(role="assistant")
        assert message.content.startswith("la")
        assert message.finish_reason == ""

    def test_questions_that_make_no_sense_are_refused(self) -> None:
        for wrong in ({}, {"text": " "}, {"text": 3}, [], {"text": "x" * 100_001}, {"text": "Hi", "conversation": "7"}):
            response = ask(self.client, wrong)
            assert response.status_code == 400, wrong
            assert response.json()["error"]["hint"]
        assert self.client.post("/chat/ask/", "{", content_type="application/json").status_code == 400
        assert self.client.get("/chat/ask/").status_code == 405
        self.fake.assert_nothing_sent()


class Guarding(TestCase):
    def setUp(self) -> None:
        cache.clear()
        self.user = get_user_model().objects.create_user("ann")

    def test_who_has_not_logged_in_is_led_there_or_refused(self) -> None:
        page = self.client.get("/chat/")
        assert (page.status_code, page.url) == (302, "/login/?next=/chat/")
        for response in (
            ask(self.client, {"text": "Hi"}),
            self.client.get("/chat/conversations/"),
            self.client.get(f"/chat/conversations/{uuid.uuid4()}/"),
        ):
            assert response.status_code == 401
            assert response.json()["error"]["hint"]

    def test_the_setting_opens_the_pages(self) -> None:
        with override_lmdeck(LOGIN_REQUIRED=False):
            assert self.client.get("/chat/").status_code == 200
            assert self.client.get("/chat/conversations/").json() == {"conversations": []}

    def test_the_csrf_token_is_needed(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(self.user)
        assert ask(strict, {"text": "Hi"}).status_code == 403
        page = strict.get("/chat/").content.decode()
        token = page.partition('data-token="')[2].partition('"')[0]
        with (
            project(),
            modify_settings(INSTALLED_APPS={"remove": [HISTORY]}),
        ):
            assert content(ask(strict, {"text": "Hi"}, **{"X-CSRFToken": token})) == "Hello."

    def test_each_user_may_ask_so_often(self) -> None:
        self.client.force_login(self.user)
        other = Client()
        other.force_login(get_user_model().objects.create_user("ben"))
        with override_lmdeck(RATE_LIMIT="2/h"):
            assert [ask(self.client, {}).status_code for _ in range(3)] == [400, 400, 429]
            response = ask(self.client, {})
            assert 0 < int(response.headers["Retry-After"]) <= 3601
            assert "Wait" in response.json()["error"]["hint"]
            assert ask(other, {}).status_code == 400
            assert self.client.get("/chat/conversations/").status_code == 200

    def test_a_new_window_begins_anew(self) -> None:
        request = RequestFactory().get("/")
        with override_lmdeck(RATE_LIMIT="1/m"):
            assert seconds_to_wait(request, now=60.0) == 0
            assert seconds_to_wait(request, now=90.0) == 31
            assert seconds_to_wait(request, now=119.9) == 1
            assert seconds_to_wait(request, now=120.0) == 0

    def test_views_of_ones_own_keep_the_limit(self) -> None:
        @rate_limited
        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse("fine")

        @rate_limited
        async def view_async(request: HttpRequest) -> HttpResponse:
            return HttpResponse("fine")

        request = RequestFactory().get("/")
        with override_lmdeck(RATE_LIMIT="2/h"):
            assert view(request).status_code == 200
            assert asyncio.run(view_async(request)).status_code == 200
            assert view(request).status_code == 429
            assert asyncio.run(view_async(request)).status_code == 429

    def test_a_site_without_users_is_told_what_to_do(self) -> None:
        request = RequestFactory().get("/chat/")
        with pytest.raises(ImproperlyConfigured, match="LOGIN_REQUIRED"):
            PageView.as_view()(request)
        with override_lmdeck(LOGIN_REQUIRED=False):
            assert PageView.as_view()(request).status_code == 200


class Pages(TestCase):
    def test_the_tag_puts_the_chat_into_a_page(self) -> None:
        page = Template("{% load lmdeck %}{% lmdeck_chat placeholder=words %}")
        shown = page.render(RequestContext(RequestFactory().get("/"), {"words": "Say <b>"}))
        assert 'data-ask="/chat/ask/"' in shown
        assert "Say &lt;b&gt;" in shown
        assert f'src="{settings.STATIC_URL}lmdeck/chat.js"' in shown
        assert "onclick" not in shown

    def test_the_static_files_are_found(self) -> None:
        from django.contrib.staticfiles.finders import find

        for name in ("lmdeck/chat.js", "lmdeck/vendor/markdown-it.js", "lmdeck/chat.css", "lmdeck_history/admin.css"):
            assert find(name), name
