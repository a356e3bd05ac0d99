"""The server's own words of an error message, apart from what it quotes of the request.

A refusal may quote the user's text, a tool's description or a field's name, and these can read like another error:
`Invalid value for 'stop': 'the model has crashed'`.
"""

from __future__ import annotations

import itertools
import json
import re

from lmdeck._late_patterns import late_pattern

__all__ = ["own_words", "without_values"]

VALUES_LIMIT = 32
_DECODER = json.JSONDecoder()
_OPENERS = late_pattern(r'[\[{](?=[\s{\[]*")')
# What llama.cpp appends to its message, and pydantic to each issue.
_APPENDED = late_pattern(r"; (?:messages|tools) = [\[{].*|\binput_value=.*?(?=, input_type=|\]\s|\]?$)", re.DOTALL)
_QUOTATION = late_pattern(r"(?<![\w'\"`])(['\"`])(?=[^\s'\"`])(?:(?!\1)[^\n]|\1(?=\w)){1,400}?\1(?!\w)")
# A validation message names fields and values; in a message about a failure, a quotation is the cause. "Error:" may precede.
_VALIDATES = late_pattern(
    r"\b(?:invalid|unrecogni[sz]ed|unexpected|unknown|unsupported|expected|duplicate|missing|not valid|not an? valid"
    r"|not (?:allowed|permitted|supported|one of)"
    r"|(?:must|should|may) (?:not )?(?:be|have|contain|match)|(?:is|are) required)\b",
    re.IGNORECASE,
)
_FAILS = late_pattern(
    r"(?<!validation )(?<!^)(?<!^\[server )\berrors?\b|(?<!json)exception\b(?! -)"
    r"|\b(?:failed(?! to (?:parse|validate)\b)|failure|rendering|crash\w*|unable|could ?n[o']t|exited)\b",
    re.IGNORECASE,
)


def own_words(message: str) -> str:
    """Return a message without what it quotes of the request: values, sentences and names."""
    words = _without_json(_APPENDED.sub("", message))
    return _QUOTATION.sub("''", words) if _is_validation(words) else words


def without_values(message: str) -> str:
    """Return a message without the values and sentences that it quotes; names of fields stay."""
    words = _without_json(_APPENDED.sub("", message))
    return _QUOTATION.sub(_name_only, words) if _is_validation(words) else words


def _name_only(quotation: re.Match[str]) -> str:
    return "''" if " " in quotation[0] else quotation[0]


def _is_validation(message: str) -> bool:
    bare = _QUOTATION.sub("''", message)
    return bool(_VALIDATES.search(bare)) and not _FAILS.search(bare)


def _without_json(message: str) -> str:
    """Return a message with its JSON values emptied; an error in JSON was read before."""
    kept, position = [], 0
    for opener in itertools.islice(_OPENERS.finditer(message), VALUES_LIMIT):
        start = opener.start()
        if start < position:
            continue
        try:
            _, end = _DECODER.raw_decode(message, start)
        except (ValueError, RecursionError):
            continue
        kept += [message[position:start], "{}"]
        position = end
    return "".join(kept) + message[position:]
