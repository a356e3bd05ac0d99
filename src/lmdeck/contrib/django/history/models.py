"""The models of conversations, messages, tool calls and token usage."""

from __future__ import annotations

import json
import uuid
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import models, router, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from msgspec import UNSET

import lmdeck
from lmdeck._plans.history import History
from lmdeck._text import storable_text
from lmdeck.contrib.django.history.rows import RoundRows, rows_of
from lmdeck.web.stored_messages import TITLE_CHARACTERS, StoredCall, StoredMessage, title_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

    from lmdeck.web.requests import PageQuestion
    from lmdeck.web.stored_messages import Ending, StoredRole


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """A query set of conversations that can be filtered by user."""

    def of(self, user: AbstractBaseUser | AnonymousUser) -> ConversationQuerySet:
        """Return the conversations of a user; none for an anonymous user."""
        return self.filter(user_id=user.pk) if user.pk is not None else self.none()


class Conversation(models.Model):
    """A conversation of a user with a model.

    `add_user` and `add` append messages, `history` returns them for a chat:

        conversation.add_user("Why is the sky blue?")
        conversation.add(lm.chat().with_messages(conversation.history()).send())
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="lmdeck_conversations",
        verbose_name=_("user"),
    )
    title = models.CharField(_("title"), max_length=200, blank=True)
    model = models.CharField(_("model"), max_length=200, blank=True)
    created = models.DateTimeField(_("created"), auto_now_add=True)
    updated = models.DateTimeField(_("updated"), auto_now=True, db_index=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        """Newest first."""

        ordering = ("-updated",)
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")

    def __str__(self) -> str:
        return self.title or str(self.id)

    def history(self) -> History:
        """Return the messages as a `lmdeck.History`, without calls that have no result.

        Servers reject such calls.
        """
        stored = self.messages.prefetch_related("tool_calls").order_by("position")
        return History(tuple(value for message in stored for value in message.values()))

    def add_user(self, text: str) -> Message:
        """Append a user message; the first one becomes the title.

        Calls that wait for a decision are discarded.
        """
        self.pending_approvals.using(self._database).all().delete()
        return self._append(role="user", content=storable_text(text))

    def ask(self, question: PageQuestion) -> Message:
        """Append a question of the page; it may replace another one and all later messages.

        Calls that wait for a decision are discarded.
        """
        with transaction.atomic(using=self._database):
            if not self._lock():
                raise Conversation.DoesNotExist(f"The conversation {self.pk} was removed.")
            if question.replaces is not UNSET:
                self._remove_from(question.replaces)
            self.pending_approvals.using(self._database).all().delete()
            return self._append(role="user", content=storable_text(question.text), images=list(question.images))

    def _remove_from(self, index: int) -> None:
        """Remove the question with an index, counted from 0, and all later messages."""
        questions = self.messages.filter(role=Message.Role.USER).order_by("position")
        replaced = questions[index : index + 1].first() if index >= 0 else None
        if replaced is not None:
            self.messages.filter(position__gte=replaced.position).delete()

    def add_system(self, text: str) -> Message:
        """Append a system message."""
        return self._append(role="system", content=storable_text(text))

    def add(
        self,
        outcome: lmdeck.Reply | lmdeck.PausedRun,
        *,
        question: Message | None = None,
        resumed: lmdeck.PausedRun | None = None,
    ) -> list[Message]:
        """Append an answer with all its rounds, calls and results.

        Of an interrupted answer, that is the part that was received.

        A paused run is stored with it, until `take_paused`. The answer of a `resumed` run continues the one that was
        paused. Nothing is appended if the conversation, or the `question` that it answers, was removed meanwhile.
        """
        with transaction.atomic(using=self._database):
            if not self._lock() or (question is not None and not self.messages.filter(pk=question.pk).exists()):
                return []
            replaced = None if resumed is None else self._message_of(resumed)
            added = [self._append_round(rows, replaced) for rows, replaced in zip(
                rows_of(outcome, resumed), chain([replaced], repeat(None)), strict=False
            )]  # fmt: skip
            if isinstance(outcome, lmdeck.PausedRun):
                PendingApproval.objects.using(self._database).create(
                    conversation=self, run=outcome.id, body=storable_text(outcome.to_json())
                )
            return added

    @property
    def paused(self) -> lmdeck.PausedRun | None:
        """The paused run of the conversation, which is not removed; None if no calls wait."""
        pending = self.pending_approvals.using(self._database).last()
        return None if pending is None else pending.paused

    def take_paused(self, run: str) -> lmdeck.PausedRun | None:
        """Return a paused run and remove it, so that it is resumed once.

        None if it no longer waits.

        Of several threads and processes, one gets it. If that one dies, the calls are lost rather than repeated.
        """
        waiting = self.pending_approvals.using(self._database).filter(run=run)
        pending = waiting.first()
        removed, _ = waiting.delete()
        return pending.paused if pending is not None and removed else None

    def _message_of(self, paused: lmdeck.PausedRun) -> Message | None:
        """Return the message with the calls that waited, to be stored again with their results."""
        call_id = storable_text(paused.reply.tool_calls[0].id)
        return self.messages.filter(ended="paused", tool_calls__call_id=call_id).last()

    def _append_round(self, rows: RoundRows, replaced: Message | None = None) -> Message:
        """Append a round, or store it in place of a message."""
        if replaced is None:
            message = self._append(**rows.message)
        else:
            message = replaced
            Message.objects.using(self._database).filter(pk=message.pk).update(**rows.message)
            message.tool_calls.all().delete()
            message.refresh_from_db()
        for fields in rows.tool_calls:
            message.tool_calls.create(**fields)
        if rows.usage is not None and replaced is None:
            usages = Usage.objects.db_manager(hints={"instance": message})
            usages.create(message=message, user_id=self.user_id, **rows.usage)
        return message

    async def ahistory(self) -> History:
        """Async version of `history`."""
        return await sync_to_async(self.history)()

    async def aadd_user(self, text: str) -> Message:
        """Async version of `add_user`."""
        return await sync_to_async(self.add_user)(text)

    async def aadd(
        self, outcome: lmdeck.Reply | lmdeck.PausedRun, *, resumed: lmdeck.PausedRun | None = None
    ) -> list[Message]:
        """Async version of `add`."""
        return await sync_to_async(self.add)(outcome, resumed=resumed)

    async def atake_paused(self, run: str) -> lmdeck.PausedRun | None:
        """Async version of `take_paused`."""
        return await sync_to_async(self.take_paused)(run)

    def _append(self, **fields: Any) -> Message:  # the fields of Message
        with transaction.atomic(using=self._database):
            if not self._lock():
                raise Conversation.DoesNotExist(f"The conversation {self.pk} was removed.")
            last = self.messages.aggregate(last=models.Max("position"))["last"]
            message = self.messages.create(position=0 if last is None else last + 1, **fields)
            if not self.title and message.role == Message.Role.USER:
                self.title = title_of(message.content)
            self.model = message.model or self.model
            self.save(update_fields=["title", "model", "updated"])
        return message

    @property
    def _database(self) -> str:
        return router.db_for_write(Conversation, instance=self)

    def _lock(self) -> bool:
        """Lock the conversation until the transaction ends; False if it was removed.

        This is a write, and the first statement of the transaction: PostgreSQL and MySQL lock the row. SQLite locks the whole
        database, and a transaction waits for that lock only if it has not read anything yet; otherwise it fails immediately.
        """
        return bool(Conversation.objects.using(self._database).filter(pk=self.pk).update(updated=timezone.now()))


class Message(models.Model):
    """One message; the result of a tool is stored with its call."""

    class Role(models.TextChoices):
        """The author of a message."""

        SYSTEM = "system", _("system")
        USER = "user", _("user")
        ASSISTANT = "assistant", _("assistant")

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages", verbose_name=_("conversation")
    )
    position = models.PositiveIntegerField(_("position"))
    role = models.CharField(_("role"), max_length=16, choices=Role.choices)
    content = models.TextField(_("content"), blank=True)
    reasoning = models.TextField(_("reasoning"), blank=True)
    model = models.CharField(_("model"), max_length=200, blank=True)
    finish_reason = models.CharField(
        _("finish reason"), max_length=40, blank=True, help_text=_("Empty if the answer was interrupted.")
    )
    ended = models.CharField(
        _("ended"),
        max_length=20,
        blank=True,
        default="",
        help_text=_("How an incomplete answer ended: stopped, cut, failed or paused."),
    )
    images = models.JSONField(_("images"), default=list, blank=True, help_text=_("Data URIs."))
    created = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        """By conversation, in chronological order."""

        ordering = ("conversation", "position")
        constraints = (models.UniqueConstraint(fields=("conversation", "position"), name="lmdeck_message_position"),)
        verbose_name = _("message")
        verbose_name_plural = _("messages")

    def __str__(self) -> str:
        return f"{self.role}: {self.content[:TITLE_CHARACTERS]}"

    def values(self) -> list[lmdeck.Message]:
        """Return the message and the results of its calls as `lmdeck.Message` values."""
        return self.stored().history()

    def stored(self) -> StoredMessage:
        """Return the message in the format of the page."""
        calls = tuple(
            StoredCall(
                id=call.call_id, name=call.name, arguments=call.arguments, content=call.result, failed=call.failed
            )
            for call in self.tool_calls.all()
        )
        return StoredMessage(
            role=cast("StoredRole", self.role),
            content=self.content,
            reasoning=self.reasoning,
            calls=calls,
            ended=self.ending or UNSET,
            images=tuple(self.images) or UNSET,
        )

    @property
    def ending(self) -> Ending | None:
        """How an incomplete answer ended: `stopped`, `cut`, `failed`, `paused` or `length`.

        None for a complete answer; `length` is the token limit.
        """
        if self.ended == "paused":
            return "paused"
        if self.role != Message.Role.ASSISTANT or (self.finish_reason and self.finish_reason != "length"):
            return None
        return cast("Ending", self.ended or self.finish_reason or "cut")


class ToolCall(models.Model):
    """A tool call; `result` is what the model received, `None` if there is no result."""

    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="tool_calls", verbose_name=_("message"))
    call_id = models.TextField(_("id of the call"))
    name = models.CharField(_("name"), max_length=200, db_index=True)
    arguments = models.JSONField(_("arguments"), default=dict, blank=True)
    result = models.TextField(_("result"), null=True, blank=True)
    failed = models.BooleanField(_("failed"), default=False)
    seconds = models.FloatField(_("seconds"), null=True, blank=True)

    class Meta:
        """In the order of the model's output."""

        ordering = ("pk",)
        verbose_name = _("tool call")
        verbose_name_plural = _("tool calls")

    def __str__(self) -> str:
        return self.name

    @property
    def arguments_text(self) -> str:
        """The arguments as indented JSON."""
        return json.dumps(self.arguments, ensure_ascii=False, indent=1)


class PendingApproval(models.Model):
    """A run that waits for decisions on its tool calls.

    It is removed when the run is resumed, or a new question is asked.
    """

    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="pending_approvals", verbose_name=_("conversation")
    )
    run = models.CharField(_("run"), max_length=64, unique=True)
    body = models.TextField(_("paused run"))
    created = models.DateTimeField(_("created"), auto_now_add=True, db_index=True)

    class Meta:
        """The oldest first."""

        ordering = ("created",)
        verbose_name = _("pending approval")
        verbose_name_plural = _("pending approvals")

    def __str__(self) -> str:
        return ", ".join(call.name for call in self.paused.calls)

    @property
    def paused(self) -> lmdeck.PausedRun:
        """The paused run."""
        return lmdeck.PausedRun.from_json(self.body)

    @property
    def calls_text(self) -> str:
        """The calls that wait, one per line."""
        return "\n".join(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in self.paused.calls)


class Usage(models.Model):
    """The token usage of one answer.

    It remains after its message and user are deleted, so that totals stay correct.
    """

    message = models.OneToOneField(
        Message, on_delete=models.SET_NULL, null=True, blank=True, related_name="usage", verbose_name=_("message")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="lmdeck_usage",
        verbose_name=_("user"),
    )
    model = models.CharField(_("model"), max_length=200, blank=True)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveIntegerField(_("completion tokens"), default=0)
    time_to_first_token = models.FloatField(_("seconds to the first token"), null=True, blank=True)
    tokens_per_second = models.FloatField(_("tokens per second"), null=True, blank=True)
    created = models.DateTimeField(_("created"), auto_now_add=True, db_index=True)

    class Meta:
        """Newest first."""

        ordering = ("-created",)
        verbose_name = _("usage")
        verbose_name_plural = _("usage")

    def __str__(self) -> str:
        return f"{self.model}: {self.prompt_tokens} + {self.completion_tokens}"
