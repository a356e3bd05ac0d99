"""Fair turns by key, and loads that happen once in seeded races."""

from __future__ import annotations

RACES = 60
