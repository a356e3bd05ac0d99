"""The tools of this application."""

from __future__ import annotations

from django.contrib.auth import get_user_model

import lmdeck
from lmdeck.contrib.django import lm


@lmdeck.tool
def get_weather(city: str) -> dict[str, object]:
    """Tell the current weather of a city."""
    return {"city": city, "temperature": 21}


@lmdeck.tool
async def count_users_later() -> int:
    """Count the users of this site, awaited."""
    return await get_user_model().objects.acount()


@lm.tool
def count_users() -> int:
    """Count the users of this site."""
    return get_user_model().objects.count()
