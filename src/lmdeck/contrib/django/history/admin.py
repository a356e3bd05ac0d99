"""The read-only admin of conversations and their token usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Count, QuerySet, Sum
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from lmdeck.contrib.django.history.models import Conversation, PendingApproval, Usage
from lmdeck.contrib.django.history.usage_charts import speed_by_model, tokens_by_day

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    _ConversationAdmin = admin.ModelAdmin[Conversation]
    _PendingApprovalAdmin = admin.ModelAdmin[PendingApproval]
    _UsageAdmin = admin.ModelAdmin[Usage]
else:
    _ConversationAdmin = _PendingApprovalAdmin = _UsageAdmin = admin.ModelAdmin  # not generic at run time


class _ReadOnly:
    """Permissions to view and delete, but not to add or change."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:  # Django's form
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:
        return False


@admin.register(Conversation)
class ConversationAdmin(_ReadOnly, _ConversationAdmin):
    """Conversations, each with its transcript."""

    list_display = ("__str__", "user", "model", "message_count", "token_count", "updated")
    list_filter = ("model", "updated")
    list_select_related = ("user",)
    search_fields = ("title", "messages__content")
    date_hierarchy = "updated"
    fields = ("title", "user", "model", "created", "updated", "transcript")
    readonly_fields = fields

    class Media:
        """The style sheet of the transcript."""

        css = {"all": ("lmdeck_history/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        """Annotate the rows with the number of messages and tokens."""
        return (
            super()
            .get_queryset(request)
            .annotate(
                message_count=Count("messages", distinct=True),
                token_count=Sum("messages__usage__prompt_tokens") + Sum("messages__usage__completion_tokens"),
            )
        )

    @admin.display(description=_("messages"), ordering="message_count")
    def message_count(self, conversation: Conversation) -> int:
        """Return the number of messages."""
        count: int = getattr(conversation, "message_count", 0)
        return count

    @admin.display(description=_("tokens"), ordering="token_count")
    def token_count(self, conversation: Conversation) -> int:
        """Return the total number of tokens of all answers."""
        return getattr(conversation, "token_count", 0) or 0

    @admin.display(description=_("transcript"))
    def transcript(self, conversation: Conversation) -> SafeString:
        """Render the messages; all texts are escaped."""
        messages = conversation.messages.select_related("usage").prefetch_related("tool_calls").order_by("position")
        return render_to_string("lmdeck_history/transcript.html", {"messages": messages})


@admin.register(PendingApproval)
class PendingApprovalAdmin(_ReadOnly, _PendingApprovalAdmin):
    """The runs whose tool calls wait for a decision, the oldest first.

    Deleting one discards the run.
    """

    list_display = ("__str__", "conversation", "created")
    list_filter = ("created",)
    list_select_related = ("conversation",)
    fields = ("conversation", "run", "created", "calls")
    readonly_fields = fields

    @admin.display(description=_("calls"))
    def calls(self, pending: PendingApproval) -> SafeString:
        """Render the calls that wait; all texts are escaped."""
        return format_html("<pre>{}</pre>", pending.calls_text)


@admin.register(Usage)
class UsageAdmin(_ReadOnly, _UsageAdmin):
    """The token usage of answers; two charts above the list follow its filters."""

    list_display = (
        "created", "model", "user", "prompt_tokens", "completion_tokens", "time_to_first_token", "tokens_per_second",
    )  # fmt: skip
    list_filter = ("model", "created")
    list_select_related = ("user",)
    date_hierarchy = "created"
    change_list_template = "admin/lmdeck_history/usage/change_list.html"

    class Media:
        """The style sheet of the charts."""

        css = {"all": ("lmdeck_history/admin.css",)}

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Add the charts of all pages of the list."""
        response = super().changelist_view(request, extra_context)
        shown = getattr(response, "context_data", {}).get("cl")
        if shown is not None:
            usage = shown.queryset.order_by()
            response.context_data["charts"] = [tokens_by_day(usage), speed_by_model(usage)]  # type: ignore[attr-defined]
        return response
