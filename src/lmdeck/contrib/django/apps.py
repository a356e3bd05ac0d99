"""The application: its checks, and the tools of all other applications."""

from asgiref.sync import SyncToAsync
from django.apps import AppConfig

from lmdeck._native_threads import is_patched
from lmdeck.web.native_loop import NativeThread

__all__ = ["LMDeckConfig"]


class LMDeckConfig(AppConfig):
    """`lmdeck.contrib.django`; its label is `lmdeck`, since `django` would say nothing."""

    name = "lmdeck.contrib.django"
    label = "lmdeck"
    verbose_name = "lmdeck"

    def ready(self) -> None:
        """Register the checks, and look for `lmdeck_tools.py` in every application."""
        from lmdeck.contrib.django import checks  # noqa: F401  # importing registers them
        from lmdeck.contrib.django.tools import discover

        discover()
        if is_patched():  # by gevent: asgiref's own thread would be a greenlet of the loop's
            SyncToAsync.single_thread_executor = NativeThread()
