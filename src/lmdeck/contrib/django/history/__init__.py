"""Conversations in the database, as a separate Django application.

Add `"lmdeck.contrib.django.history"` to `INSTALLED_APPS` and run `manage.py migrate`.

Projects that do not store conversations have no tables for them.
"""
