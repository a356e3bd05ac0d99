"""From a model's text to content, reasoning and tool calls, for every dialect.
No I/O and no clock.
"""
