"""Handlers between a client and its transport.

Each handler wraps the next; the innermost makes one exchange.
"""
