"""Handlers between a client and its transport.

Each wraps the next; the innermost makes one exchange.
"""
