"""`{% lmdeck_chat %}`: the chat inside a page of the project."""

from __future__ import annotations

from typing import Any

from django.template import Context, Library
from django.urls import reverse
from django.utils.safestring import mark_safe

from lmdeck.contrib.django.conf import configuration
from lmdeck.web.chat_page import PLACEHOLDER, TITLE, PageUrls, chat_section

register = Library()


@register.inclusion_tag("lmdeck/chat.html", takes_context=True)
def lmdeck_chat(
    context: Context, placeholder: str = PLACEHOLDER, ask: str = "lmdeck:ask", title: str = TITLE
) -> dict[str, Any]:
    """Render the chat; `ask` is the name of the URL that answers.

    The default is the one in `lmdeck.contrib.django.urls`.

    The script and the style sheet are included as static files, not inline, so a strict content security policy allows them.
    """
    urls = PageUrls(ask=reverse(ask), conversations=reverse("lmdeck:conversations"), state=reverse("lmdeck:state"))
    chat = chat_section(
        urls,
        title=title,
        placeholder=placeholder,
        token=str(context.get("csrf_token", "")),
        examples=configuration().examples,
    )
    return {"chat": mark_safe(chat)}  # noqa: S308  # its values are escaped
