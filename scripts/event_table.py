"""Write the table of events into docs/events.md: `python scripts/event_table.py`."""

from __future__ import annotations

from pathlib import Path

from lmdeck.events import EVENTS

PAGE = Path(__file__).parents[1] / "docs" / "events.md"
MARK = "<!-- table: begin -->\n"


def page(text: str) -> str:
    rows = ["| event | fields | what happened |", "|---|---|---|"]
    for event in EVENTS:
        fields = ", ".join(f"`{name}`" for name in event.__struct_fields__)
        rows.append(f"| `{event.__name__}` | {fields} | {' '.join((event.__doc__ or '').split())} |")
    return text[: text.index(MARK) + len(MARK)] + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
