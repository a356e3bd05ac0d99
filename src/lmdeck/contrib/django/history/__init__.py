"""Conversations in the database: add `"lmdeck.contrib.django.history"` to `INSTALLED_APPS` and run `manage.py migrate`.

It is a separate application, so that projects that do not store conversations have no tables for them.
"""
