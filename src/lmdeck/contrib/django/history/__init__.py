"""Conversations in the database: add `"lmdeck.contrib.django.history"` to `INSTALLED_APPS` and run `manage.py migrate`.

It is an application of its own, so that a project that keeps no conversations has no tables for them.
"""
