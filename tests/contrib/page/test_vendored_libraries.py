"""The libraries of the page are those that are pinned, unchanged, each with its licence."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path

from lmdeck.web.chat_page import MEDIA_TYPES, STATIC

VENDOR = STATIC / "vendor"
PINNED = runpy.run_path(str(Path(__file__).parents[3] / "scripts" / "vendor_page.py"))["LIBRARIES"]


def test_every_library_has_its_version_its_checksum_and_its_licence() -> None:
    manifest = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    assert {file.name for file in VENDOR.glob("*.js")} == set(manifest)
    assert {f"{library.name}.js": library.version for library in PINNED} == {
        name: each["version"] for name, each in manifest.items()
    }
    for name, each in manifest.items():
        data = (VENDOR / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
        assert b"sourceMappingURL" not in data  # Django's manifest storage would look for the map
        assert "opyright" in (VENDOR / name).with_suffix(".LICENSE.txt").read_text(encoding="utf-8")


def test_every_file_has_a_media_type() -> None:
    assert {path.suffix for path in STATIC.rglob("*") if path.is_file()} <= set(MEDIA_TYPES)
