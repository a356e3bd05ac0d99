"""Conversations in the database, and their admin."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.test import TestCase
from django.utils import timezone
from far_end import project

import lmdeck
from asking import last_asked
from lmdeck import Reply
from lmdeck.contrib.django import lm
from lmdeck.contrib.django.history.models import Conversation, Message, ToolCall, Usage
from lmdeck.contrib.django.history.usage_charts import tokens_by_day


def answered(question: str, **saved: Any) -> Conversation:
    """Hold a conversation of one question, through the client, and save it."""
    conversation = Conversation.objects.create(**saved)
    conversation.add_user(question)
    with project():
        chat = lm.chat().with_messages(conversation.history()).with_tools(["get_weather"])
        with chat.run_stream() as run:
            for _ in run:
                continue
        lm.close()
    conversation.add(run.reply)
    return conversation


class Saving(TestCase):
    def test_a_run_is_kept_with_its_calls_and_given_back(self) -> None:
        conversation = answered("tool")
        history = Conversation.objects.get().history()
        assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]
        assert history.messages[1].tool_calls[0].name == "get_weather"
        assert history.messages[1].tool_calls[0].id == history.messages[2].tool_call_id
        assert '"temperature":21' in history.messages[2].content
        assert str(conversation) == "tool"
        assert conversation.model == "m"
        assert [message.position for message in conversation.messages.all()] == [0, 1, 2]
        call = ToolCall.objects.get()
        assert call.arguments == {"city": "Paris"}
        assert call.seconds is not None
        assert not call.failed

    def test_the_next_question_sends_what_was_kept(self) -> None:
        conversation = answered("tool")
        conversation.add_user("And in Rome?")
        with project() as fake:
            fake.when(lambda _: True).reply("Warm.", prompt_tokens=3, completion_tokens=2)
            conversation.add(lm.chat().with_messages(conversation.history()).send())
            lm.close()
            sent = last_asked(fake).messages
        assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
        assert conversation.messages.last().content == "Warm."
        usage = Usage.objects.get(message=conversation.messages.last())
        assert (usage.prompt_tokens, usage.completion_tokens, usage.model) == (3, 2, "m")

    def test_an_answer_that_was_cut_is_kept_as_far_as_it_came(self) -> None:
        conversation = Conversation.objects.create()
        conversation.add_user("Tell me a story.")
        conversation.add(Reply(content="Once upon"))
        conversation.add(Reply())
        (message,) = conversation.messages.filter(role="assistant")
        assert (message.content, message.finish_reason) == ("Once upon", "")

    def test_a_run_that_was_cut_keeps_its_whole_rounds(self) -> None:
        asked = lmdeck.ToolCall(id="c1", name="get_weather", arguments={"city": "Paris"})
        reply = Reply(
            content="In Pa",
            messages=[
                lmdeck.Message(role="assistant", tool_calls=(asked,)),
                lmdeck.Message(role="tool", content="21", tool_call_id="c1"),
                lmdeck.Message(role="assistant", content="In Pa"),
            ],
        )
        conversation = Conversation.objects.create()
        conversation.add_user("Weather?")
        conversation.add(reply)
        assert [message.role for message in conversation.history()] == ["user", "assistant", "tool", "assistant"]
        assert conversation.history().messages[3].content.startswith("In Pa\n\n[This answer was interrupted")
        assert [message.ended for message in conversation.messages.all()] == ["", "", "cut"]

    def test_a_call_without_result_is_kept_but_not_sent(self) -> None:
        conversation = Conversation.objects.create()
        conversation.add_user("Weather?")
        conversation.add(Reply(tool_calls=[lmdeck.ToolCall(id="c1", name="get_weather")], finish_reason="tool_calls"))
        assert ToolCall.objects.get().result is None
        assert [message.role for message in conversation.history()] == ["user"]

    def test_each_user_has_his_own(self) -> None:
        users = [get_user_model().objects.create_user(name) for name in ("ann", "ben")]
        mine = Conversation.objects.create(user=users[0])
        Conversation.objects.create(user=users[1])
        Conversation.objects.create()
        assert list(Conversation.objects.all().of(users[0])) == [mine]
        assert not Conversation.objects.all().of(AnonymousUser())

    def test_usage_outlives_the_conversation_and_the_user(self) -> None:
        user = get_user_model().objects.create_user("ann")
        conversation = Conversation.objects.create(user=user)
        conversation.add(
            Reply(content="Hi", usage=lmdeck.Usage(prompt_tokens=3, completion_tokens=2), finish_reason="stop")
        )
        user.delete()
        assert not Message.objects.exists()
        assert Usage.objects.get().completion_tokens == 2

    async def test_the_same_awaited(self) -> None:
        conversation = await Conversation.objects.acreate()
        await conversation.aadd_user("Hi")
        await conversation.aadd(Reply(content="Hello.", finish_reason="stop"))
        assert len(await conversation.ahistory()) == 2

    def test_the_migrations_are_whole(self) -> None:
        call_command("makemigrations", "lmdeck_history", check=True, dry_run=True, verbosity=0)


class Admin(TestCase):
    def setUp(self) -> None:
        self.client.force_login(get_user_model().objects.create_superuser("boss"))

    def test_the_transcript_is_shown_and_escaped(self) -> None:
        conversation = answered("tool")
        conversation.add_user("<script>alert(1)</script>")
        conversation.add(Reply(content="Once", reasoning="Hm <b>"))
        page = self.client.get(f"/admin/lmdeck_history/conversation/{conversation.pk}/change/").content.decode()
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>alert(1)" not in page
        assert "Hm &lt;b&gt;" in page
        assert "Cut off" in page
        assert "get_weather" in page
        assert "&quot;Paris&quot;" in page
        assert 'name="_save"' not in page

    def test_conversations_are_listed_and_found(self) -> None:
        conversation = answered("tool")
        page = self.client.get("/admin/lmdeck_history/conversation/?q=temperature").content.decode()
        assert str(conversation.pk) in page
        assert re.search(r'field-token_count">42<', page)
        assert re.search(r'field-message_count">3<', page)
        assert (
            str(conversation.pk)
            not in self.client.get("/admin/lmdeck_history/conversation/?q=nothing").content.decode()
        )

    def test_usage_has_charts_that_follow_the_filters(self) -> None:
        for model, tokens, speed in (("one", 10, 20.0), ("two", 30, 80.0)):
            Usage.objects.create(model=model, prompt_tokens=tokens, completion_tokens=tokens, tokens_per_second=speed)
        old = Usage.objects.create(model="old", prompt_tokens=5000)
        Usage.objects.filter(pk=old.pk).update(created=timezone.now() - timedelta(days=90))
        page = self.client.get("/admin/lmdeck_history/usage/").content.decode()
        assert page.count("<svg") >= 2
        assert "80 tokens in 30 days; at most 80 on one day." in page
        assert "two: 80.0 tokens/s, 1 answers" in page
        assert "<script>" not in page.partition('class="lmdeck-charts"')[2].partition("</div>")[0]
        page = self.client.get("/admin/lmdeck_history/usage/?model=one").content.decode()
        assert "20 tokens in 30 days" in page
        assert "two: 80.0" not in page

    def test_an_empty_chart_says_so(self) -> None:
        assert "No answers yet." in self.client.get("/admin/lmdeck_history/usage/").content.decode()

    def test_nothing_can_be_written_by_hand(self) -> None:
        conversation = Conversation.objects.create(title="before")
        assert self.client.get("/admin/lmdeck_history/conversation/add/").status_code == 403
        self.client.post(f"/admin/lmdeck_history/conversation/{conversation.pk}/change/", {"title": "after"})
        conversation.refresh_from_db()
        assert conversation.title == "before"


class Charts(TestCase):
    def test_the_bars_of_a_day_stand_on_each_other(self) -> None:
        Usage.objects.create(prompt_tokens=30, completion_tokens=10)
        chart = tokens_by_day(Usage.objects.all())
        below, above = chart.bars
        assert (below.kind, above.kind) == ("prompt", "completion")
        assert float(above.y) + float(above.height) == float(below.y)
        assert float(above.y) == 0.0
        assert float(below.height) == 3 * float(above.height)
