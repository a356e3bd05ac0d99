"""The Django integration, for Django 5.2 and 6.

Add `"lmdeck.contrib.django"` to `INSTALLED_APPS`.

    from lmdeck.contrib.django import lm

    reply = lm.chat().user("Why is the sky blue?").send()

`lm` is for sync code, `alm` for async code; both are created at first use from the setting `LMDECK`.
"""

from lmdeck.contrib._extras import missing_extra

try:
    from lmdeck.contrib.django.clients import alm, lm
    from lmdeck.contrib.django.streaming import stream_response
except ModuleNotFoundError as error:
    raise missing_extra(error, "django") from error

__all__ = ["alm", "lm", "stream_response"]
