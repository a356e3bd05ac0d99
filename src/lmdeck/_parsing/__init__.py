"""From a model's text to content, reasoning and tool calls, for every dialect.

No module here does I/O or reads a clock.
"""
