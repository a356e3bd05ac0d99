from __future__ import annotations

from way_fixtures import fake

__all__ = ["fake"]
