"""Answers for browsers: one encoder of server-sent events for every framework, and one page."""
