"""A repairing proxy as an ASGI application.

    from lmdeck.contrib.asgi import RepairProxy

    app = RepairProxy(base_url="http://gpu-box:1234")

`lmdeck proxy` and `lmdeck run` serve this application.
"""

from __future__ import annotations

from lmdeck.relay.proxy import RepairProxy

__all__ = ["RepairProxy"]
