"""Handlers between a client and its transport: each wraps the next, the innermost makes one exchange."""
