"""The tools that the model may call; lmdeck finds this file by its name."""

from datetime import timedelta

from django.contrib.auth import get_user_model
from django.utils import timezone

import lmdeck


@lmdeck.tool
def current_time(utc_offset: int = 0) -> str:
    """Get the date and time at an offset in hours from UTC."""
    there = timezone.get_fixed_timezone(timedelta(hours=utc_offset))
    return timezone.localtime(timezone=there).isoformat(sep=" ", timespec="minutes")


@lmdeck.tool
def count_users() -> int:
    """Count the users of this site."""
    return get_user_model().objects.count()
