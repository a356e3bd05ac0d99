"""lmdeck at home in Django 5.2 and 6: put `"lmdeck.contrib.django"` into `INSTALLED_APPS`.

    from lmdeck.contrib.django import lm

    reply = lm.chat().user("Why is the sky blue?").send()

`lm` is for sync code, `alm` for async code; both are made when they are first used, of the setting `LMDECK`.
"""

from lmdeck.contrib.django.clients import alm, lm
from lmdeck.contrib.django.streaming import stream_response

__all__ = ["alm", "lm", "stream_response"]
