"""Token counts and statistics of all servers under the names of `Usage` and `Stats`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DRAFT_TOKEN_COUNTS = ("total_draft_tokens_count", "accepted_draft_tokens_count", "rejected_draft_tokens_count")


def flatten_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Return a usage with cached and reasoning tokens beside the totals.

    OpenAI nests them in `…_tokens_details`.
    """
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    flat = dict(usage)
    if isinstance(prompt, dict):
        flat.setdefault("cached_tokens", prompt.get("cached_tokens"))
    if isinstance(completion, dict):
        flat.setdefault("reasoning_tokens", completion.get("reasoning_tokens"))
    return flat


def with_draft_tokens(stats: dict[str, Any]) -> dict[str, Any]:
    """Return LM Studio's `stats` with the counts of speculative decoding as one object.

    Source: LM Studio docs, `api-changelog.md`.
    """
    if stats.keys().isdisjoint(DRAFT_TOKEN_COUNTS):
        return stats
    total, accepted, rejected = map(stats.get, DRAFT_TOKEN_COUNTS)
    return {**stats, **_draft_tokens(total, accepted, rejected)}


def _draft_tokens(total: object, accepted: object, rejected: object) -> dict[str, Any]:
    counts = {"total": total, "accepted": accepted, "rejected": rejected}
    known = {name: int(count) for name, count in counts.items() if isinstance(count, (int, float))}
    return {"draft_tokens": known} if known else {}


def stats_of_timings(timings: dict[str, Any]) -> dict[str, Any]:
    """Return llama.cpp's `timings` under the names of `Stats`, in seconds.

    Source: llama.cpp's `tools/server/README.md`.
    """
    total, accepted = timings.get("draft_n"), timings.get("draft_n_accepted")
    rejected = total - accepted if isinstance(total, int) and isinstance(accepted, int) else None
    figures = {
        "time_to_first_token": (timings.get("prompt_ms"), 1000),
        "generation_time": (timings.get("predicted_ms"), 1000),
        "tokens_per_second": (timings.get("predicted_per_second"), 1),
    }
    speed = {
        name: value / unit
        for name, (value, unit) in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    }
    return {**speed, **_draft_tokens(total, accepted, rejected)}


def with_openai_names(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return the token counts of the other endpoints under OpenAI's names.

    Cached and reasoning tokens are included. Anthropic's API counts `cache_read_input_tokens` separately from `input_tokens`;
    here they are part of the prompt.
    """
    cached = _count(usage.get("cache_read_input_tokens"))
    counts = {
        "prompt_tokens": _count(usage.get("input_tokens")),
        "completion_tokens": _count(usage.get("output_tokens", usage.get("total_output_tokens"))),
    }
    known = {name: value for name, value in counts.items() if value is not None}
    if cached is not None and "prompt_tokens" in known:
        known["prompt_tokens"] += cached
    total = _count(usage.get("total_tokens"))
    known["total_tokens"] = sum(known.values()) if total is None else total
    read, written = _object(usage.get("input_tokens_details")), _object(usage.get("output_tokens_details"))
    details = {
        "cached_tokens": _count(read.get("cached_tokens")) if cached is None else cached,
        "reasoning_tokens": _count(written.get("reasoning_tokens", usage.get("reasoning_output_tokens"))),
    }
    return known | {name: value for name, value in details.items() if value is not None}


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
