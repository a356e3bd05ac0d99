"""Fetch the libraries of the chat page into `src/lmdeck/web/static/vendor`, in the versions that are pinned here.

    python scripts/vendor_page.py

It needs npm, which checks each package against the registry's own checksum. The page has no build step: each library is one
module as its authors publish it, without the reference to a source map, which is not included. `vendor.json` has the checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).parents[1] / "src" / "lmdeck" / "web" / "static" / "vendor"


class Library(NamedTuple):
    """A package of the npm registry, the module to take from it, and the name of that here."""

    package: str
    version: str
    license: str
    module: str
    name: str


LIBRARIES = (
    Library("markdown-it", "15.0.3", "MIT", "dist/browser/markdown-it.esm.min.mjs", "markdown-it"),
    Library("dompurify", "3.4.18", "MPL-2.0 OR Apache-2.0", "dist/purify.es.mjs", "purify"),
    Library("@highlightjs/cdn-assets", "11.12.0", "BSD-3-Clause", "es/highlight.min.js", "highlight"),
)


def fetch(library: Library, folder: str) -> tuple[bytes, bytes]:
    """Return the module and the licence of a package."""
    npm = shutil.which("npm")
    assert npm, "npm was not found: apt-get install npm"
    specification = f"{library.package}@{library.version}"
    subprocess.run([npm, "pack", "--silent", specification], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = Path(folder).glob("*.tgz")
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as files:
        archive.unlink()
        module, text = (files.extractfile(f"package/{name}") for name in (library.module, "LICENSE"))
        assert module is not None
        assert text is not None
        return re.sub(rb"\n//# sourceMappingURL=.*\s*$", b"\n", module.read()), text.read()


def main() -> None:
    """Write the modules, their licences and `vendor.json`."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for library in LIBRARIES:
        with tempfile.TemporaryDirectory() as folder:
            module, text = fetch(library, folder)
        (VENDOR / f"{library.name}.js").write_bytes(module)
        (VENDOR / f"{library.name}.LICENSE.txt").write_bytes(text)
        manifest[f"{library.name}.js"] = {
            "package": library.package,
            "version": library.version,
            "license": library.license,
            "sha256": hashlib.sha256(module).hexdigest(),
        }
        print(f"{library.name}.js {library.version} {len(module) // 1024} kB")
    (VENDOR / "vendor.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
