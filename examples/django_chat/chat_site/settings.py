"""A site with nothing but the chat and the admin."""

import os
from pathlib import Path

SECRET_KEY = "this example listens on loopback only"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "lmdeck.contrib.django",
    "lmdeck.contrib.django.history",
    "chat_site",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHAT_DATABASE") or Path(__file__).parents[1] / "chat.sqlite3",
    }
}
ROOT_URLCONF = "chat_site.urls"
LOGIN_URL = "admin:login"
STATIC_URL = "static/"
USE_TZ = True

LMDECK = {"SYSTEM": "Answer briefly.", "RATE_LIMIT": "60/m", "MAX_ROUNDS": 4}
SILENCED_SYSTEM_CHECKS = ["lmdeck.W001"]  # one process: its own memory counts well enough
