"""The application configuration: registers the system checks and the project's tools."""

from asgiref.sync import SyncToAsync
from django.apps import AppConfig
from django.conf import settings

from lmdeck._native_threads import is_patched
from lmdeck.web.chat_page import STATIC
from lmdeck.web.native_loop import NativeThread


def add_static_files() -> None:
    """Add the folder of the page's files to those that `staticfiles` searches.

    All frameworks share it.
    """
    folders: list[object] = list(settings.STATICFILES_DIRS)
    folder = ("lmdeck", str(STATIC))
    if folder not in folders:
        settings.STATICFILES_DIRS = [*folders, folder]


class LMDeckConfig(AppConfig):
    """`lmdeck.contrib.django`, with the label `lmdeck`."""

    name = "lmdeck.contrib.django"
    label = "lmdeck"
    verbose_name = "lmdeck"

    def ready(self) -> None:
        """Register the checks and the tools in every application's `lmdeck_tools.py`."""
        from lmdeck.contrib.django import checks  # noqa: F401  # importing registers them
        from lmdeck.contrib.django.tools import discover

        discover()
        add_static_files()
        if is_patched():  # by gevent: asgiref's thread would be a greenlet in the thread of the event loop
            SyncToAsync.single_thread_executor = NativeThread()
