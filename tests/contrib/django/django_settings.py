"""The settings of the Django tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

SECRET_KEY = "only for tests"
DEBUG = "TEST_DEBUG" in os.environ  # which has the servers of the browser tests give static files
ALLOWED_HOSTS = ["*"]
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "lmdeck.contrib.django",
    "lmdeck.contrib.django.history",
    "weather",
]
DATABASES = {
    "default": json.loads(os.environ["TEST_POSTGRES"])
    if "TEST_POSTGRES" in os.environ
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_DATABASE", ":memory:"),
        "TEST": {"NAME": ":memory:"},
        # Threads that share a database in memory do not wait for each other's locks: a read beside a write fails at once.
        "OPTIONS": {"timeout": 60, "init_command": "PRAGMA read_uncommitted = ON"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "django_urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
LOGIN_URL = "/login/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ENDS = os.environ.get("TEST_ENDS", "")
LMDECK = {"BASE_URL": os.environ.get("TEST_LM_STUDIO", "http://127.0.0.1:9"), "MODEL": "m", "RETRY_ATTEMPTS": 1}
