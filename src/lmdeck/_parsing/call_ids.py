"""Ids for tool calls that arrived without one."""

import random
import string

_ALPHABET = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Return a tool-call id of nine letters and digits.

    Every template accepts this form; Mistral's requires it.
    """
    return "".join(random.choices(_ALPHABET, k=9))
