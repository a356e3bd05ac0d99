"""The clients: `LMStudio` and `AsyncLMStudio`, their chats, streams and models.

All logic is written once, as plans (`lmdeck._plans`) over a shared `Session`; the sync and async classes only run them.
"""
