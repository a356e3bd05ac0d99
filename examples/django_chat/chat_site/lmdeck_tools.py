"""The tools that the model may call; lmdeck finds this file by its name."""

from django.contrib.auth import get_user_model
from django.utils import timezone

import lmdeck


@lmdeck.tool
def current_time() -> str:
    """Tell the current date and time."""
    return timezone.localtime().isoformat(timespec="seconds")


@lmdeck.tool
def count_users() -> int:
    """Tell how many users this site has."""
    return get_user_model().objects.count()
