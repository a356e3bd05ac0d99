"""Cassettes: recorded HTTP exchanges, how they are made, and how they are replayed."""
