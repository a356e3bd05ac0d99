"""A cache of exact answers, streamed or whole, shared by threads, tasks and processes.

    client = lmdeck.LMStudio(cache="sqlite:///answers.db")

`Cache` is the cache itself, `CachingHandler` the handler that asks it around every request of a client, `Store` the protocol of
the place where answers are kept.
"""

from lmdeck.cache.handler import Cache, CachingHandler, has_flaws
from lmdeck.cache.request_keys import CacheControl, request_key
from lmdeck.cache.stores import Entry, MemoryStore, RedisStore, SQLiteStore, Store, open_store

__all__ = [
    "Cache",
    "CacheControl",
    "CachingHandler",
    "Entry",
    "MemoryStore",
    "RedisStore",
    "SQLiteStore",
    "Store",
    "has_flaws",
    "open_store",
    "request_key",
]
