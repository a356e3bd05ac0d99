"""The rate limit of a user, counted in Django's cache in windows of fixed length."""

from __future__ import annotations

import time

from django.core.cache import caches
from django.http import HttpRequest

from lmdeck.contrib.django.conf import configuration


def seconds_to_wait(request: HttpRequest, now: float | None = None) -> int:
    """Count a request of its user; return the seconds to wait if the limit is exceeded, else 0.

    A user who is not logged in is identified by `REMOTE_ADDR`; behind a proxy, the proxy or a middleware must set it.
    """
    configured = configuration()
    limit = configured.rate_limit
    if limit is None:
        return 0
    moment = time.time() if now is None else now
    window = int(moment // limit.seconds)
    key = f"lmdeck:rate:{_name(request)}:{window}"
    cache = caches[configured.cache]
    cache.add(key, 0, limit.seconds + 1)
    try:
        count = cache.incr(key)
    except ValueError:  # the cache has evicted the key meanwhile
        cache.set(key, count := 1, limit.seconds + 1)
    return 0 if count <= limit.requests else max(1, int((window + 1) * limit.seconds - moment) + 1)


def _name(request: HttpRequest) -> str:
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user:{user.pk}"
    return f"address:{request.META.get('REMOTE_ADDR', '')}"
