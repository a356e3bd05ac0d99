"""The clients: `LMStudio` and `AsyncLMStudio`, their chats, streams and models.

Everything that decides is written once, as plans (`plans.py`) over a shared `Session`; the sync and async shells only run them.
"""
