"""Hints about MCP servers and plugins."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.error_codes import TYPES
from lmdeck._responses.error_expressions import PLUGIN

REFUSED = (
    (
        AnyPattern(r"\bserver_url\b"),
        'Add a `server_url` to the MCP tool; a server of mcp.json is used by `lm.conversation(integrations=["mcp/name"])`.',
    ),
    (
        AnyPattern(r"permission denied to use", r"local (mcp|integrations?)\b.{0,80}(permission|not allowed|disabled)"),
        "Allow local MCP servers in the server's settings, and give the API token permission to use them.",
    ),
    (
        AnyPattern(r"\bplugin\b.{0,60}\bnot allowed\b"),
        "Allow the plugin for this API token in the server's settings, or leave it out of `integrations`.",
    ),
    (PLUGIN, TYPES["plugin_connection_error"][1]),
)
OTHER = (
    AnyPattern(r"\bMCP\b"),
    "Check the MCP server: that it runs, its entry in mcp.json or in the request, and that the settings allow it.",
)
