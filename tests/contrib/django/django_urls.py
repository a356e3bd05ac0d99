"""The addresses of the Django tests: one view for each way to make a streamed answer."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.http import HttpRequest, HttpResponseBase
from django.urls import include, path

from lmdeck import Chat, Reply
from lmdeck.contrib.django import alm, lm, stream_response
from lmdeck.contrib.django.views import AskView


def note(reply: Reply) -> None:
    """Write down how an answer ended, for the test in the other process."""
    if settings.ENDS:
        with Path(settings.ENDS).open("a", encoding="utf-8") as file:
            file.write(f"{reply.finish_reason or 'cut'} {reply.content[:20]}\n")


async def note_async(reply: Reply) -> None:
    note(reply)


def sync_lm(request: HttpRequest) -> HttpResponseBase:
    return stream_response(lm.chat().user(request.GET["q"]).with_tools(["get_weather"]), on_end=note)


def sync_alm(request: HttpRequest) -> HttpResponseBase:
    return stream_response(alm.chat().user(request.GET["q"]).with_tools(["get_weather"]), on_end=note_async)


async def async_lm(request: HttpRequest) -> HttpResponseBase:
    return stream_response(lm.chat().user(request.GET["q"]).with_tools(["get_weather"]), on_end=note_async)


async def async_alm(request: HttpRequest) -> HttpResponseBase:
    return stream_response(alm.chat().user(request.GET["q"]).with_tools(["get_weather"]), on_end=note)


class PirateView(AskView):
    system = "Talk like a pirate."
    tools = ()

    def get_chat(self, request: HttpRequest) -> Chat:
        return super().get_chat(request).with_options(temperature=0)


urlpatterns = [
    *staticfiles_urlpatterns(),
    path("chat/", include("lmdeck.contrib.django.urls")),
    path("pirate/", PirateView.as_view(login_required=False)),
    path("careful/", AskView.as_view(login_required=False, approve="pause", tools=("get_weather",))),
    path("login/", LoginView.as_view()),
    path("admin/", admin.site.urls),
    *(path(f"{view.__name__}/", view) for view in (sync_lm, sync_alm, async_lm, async_alm)),
]
