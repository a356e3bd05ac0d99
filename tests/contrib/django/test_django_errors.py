"""The middleware for a view's `LMStudioError`, the checks of a site's URLs, and the page while the database is locked."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, TestCase, override_settings
from django.urls import path
from far_end import project

from lmdeck.contrib.django import alm, lm


def view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(lm.chat("missing").user("Hi").send().content)


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await alm.chat("missing").user("Hi").send()).content)


def broken(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


urlpatterns = [path("sync/", view), path("async/", async_view), path("broken/", broken)]


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=["lmdeck.contrib.django.middleware.LMStudioErrorMiddleware"])
class Views(TestCase):
    def test_visitors_get_a_status_and_a_neutral_sentence(self) -> None:
        with project():
            for address in ("/sync/", "/async/"):
                answer = Client().get(address)
                assert answer.status_code == 503
                error = answer.json()["error"]
                assert error["message"] == "The model is not available right now."
                assert error["request_id"] in error["hint"]
                page = Client().get(address, headers={"Accept": "text/html"})
                assert "<h1>The model is not available right now.</h1>" in page.content.decode()
            assert asyncio.run(AsyncClient().get("/async/")).status_code == 503

    @override_settings(DEBUG=True)
    def test_developers_get_the_error(self) -> None:
        with project():
            error = Client().get("/sync/").json()["error"]
        assert error["type"] == "ModelNotFoundError"
        assert "missing" in error["message"]

    def test_other_errors_are_django_s(self) -> None:
        client = Client(raise_request_exception=False)
        assert client.get("/broken/").status_code == 500


class Pages(TestCase):
    def setUp(self) -> None:
        self.client.force_login(get_user_model().objects.create_user("ann"))

    def test_while_the_database_is_locked_the_page_is_told_to_try_again(self) -> None:
        with project(), patch(
            "lmdeck.contrib.django.history.models.Conversation._lock", side_effect=OperationalError("database is locked")
        ):  # fmt: skip
            answer = self.client.post("/chat/ask/", {"text": "Hi"}, content_type="application/json")
        assert answer.status_code == 503
        assert "req_" in answer.json()["error"]["hint"]
        assert "locked" not in answer.json()["error"]["message"]

    def test_the_state_names_the_model(self) -> None:
        with project():
            found = self.client.get("/chat/state/").json()
        assert (found["state"], found["model"]) == ("ready", "m")


class Checks(TestCase):
    def test_a_login_page_that_is_not_there_is_warned_of(self) -> None:
        def found() -> list[str]:
            return [str(each.id) for each in run_checks(tags=["lmdeck"])]

        assert found() == []
        with override_settings(LOGIN_URL="/accounts/login/"):
            assert found() == ["lmdeck.W003"]
        with override_settings(LOGIN_URL="/accounts/login/", LMDECK={"LOGIN_REQUIRED": False}):
            assert found() == []
        for known in ("admin:login", "https://login.example.org/", "/login/?from=chat"):
            with override_settings(LOGIN_URL=known):
                assert found() == []
        with override_settings(STATICFILES_DIRS=[]):
            assert found() == ["lmdeck.W004"]
