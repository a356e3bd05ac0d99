"""Answers for browsers: one encoder of server-sent events, the same bytes from every framework, and one page to show them."""
