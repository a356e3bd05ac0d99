"""Removal of secrets from texts, headers and JSON: tokens, passwords, cookies, private keys.

A secret is recognised by its name (`names`), by its format (`formats`), by its place in a text (`plain_text`) or in JSON
(`json_text`), or because it was recognised elsewhere in the same exchange (`exchange`).
"""
