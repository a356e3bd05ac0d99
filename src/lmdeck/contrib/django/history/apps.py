"""The application configuration of the history."""

from django.apps import AppConfig


class HistoryConfig(AppConfig):
    """`lmdeck.contrib.django.history`, with the label `lmdeck_history`."""

    name = "lmdeck.contrib.django.history"
    label = "lmdeck_history"
    verbose_name = "lmdeck: conversations"
    default_auto_field = "django.db.models.BigAutoField"
