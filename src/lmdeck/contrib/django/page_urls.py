"""Whether the project has the chat page among its URLs, and a login page."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse


def has_page() -> bool:
    """Whether the URLs of the page are included."""
    try:
        reverse("lmdeck:page")
    except NoReverseMatch:
        return False
    return True


def has_login_page() -> bool:
    """Whether `LOGIN_URL` leads to a view of the project, or to another site."""
    address = urlsplit(resolve_url(settings.LOGIN_URL))
    if address.netloc:
        return True
    try:
        resolve(address.path)
    except Resolver404:
        return False
    return True
