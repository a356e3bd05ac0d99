"""The health check as a plan: the model list, and up to two probes for the product."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from lmdeck._pipeline.effects import Plan
from lmdeck._plans.model_lists import Listing, ask_listing
from lmdeck._plans.session import Session
from lmdeck._responses.server_detection import (
    LM_STUDIO,
    STATUS,
    UNKNOWN_PRODUCT,
    Product,
    probe_paths,
    product_from_error,
    read_status,
    recognize,
    refine,
)
from lmdeck._settings.sources import from_lm_studio, lm_studio_api_ports
from lmdeck.errors import LMStudioError, TransportError
from lmdeck.model_info import Health


def check_health(session: Session, clock: Callable[[], float] = time.monotonic) -> Plan[Health]:
    """Return the health of the server; it is unreachable only if the request got no response."""
    started = clock()
    try:
        listing = yield from ask_listing(session, session.prompt)
    except LMStudioError as error:
        reachable = not isinstance(error, TransportError)
        latency = clock() - started if reachable else None
        return Health(
            reachable=reachable,
            latency=latency,
            product=session.peer.product or product_from_error(error.message),
            error=error,
        )
    latency = clock() - started
    product = yield from _identify(session, listing)
    return Health(
        reachable=True,
        latency=latency,
        product=product.name or UNKNOWN_PRODUCT,
        version=product.version,
        api=listing.api,
        models_loaded=[instance.id for model in listing.models for instance in model.instances],
    )


def _identify(session: Session, listing: Listing) -> Plan[Product]:
    """Return the product that sent the list.

    LM Studio and lmdeck's engine need no further request.
    """
    product = recognize(listing.api, listing.body, listing.headers, listing.refusals)
    product = Product(product.name or session.peer.product, product.version)
    if product.name == LM_STUDIO:
        session.peer.product = LM_STUDIO
        return (yield from _edition(session))
    probed: set[str] = set()
    while path := next((each for each in probe_paths(product) if each not in probed), None):
        probed.add(path)
        product = refine(path, (yield from session.probe(path)), product)
    session.peer.product = product.name or UNKNOWN_PRODUCT
    return (yield from _edition(session)) if product.name == LM_STUDIO else product


def _edition(session: Session) -> Plan[Product]:
    """Return the LM Studio program that answers, and its version; they are requested only once."""
    if session.peer.edition is None:
        named = read_status((yield from session.probe(STATUS)))
        if named is None and _is_served_by_this_machine(session):
            named = yield from find_local_edition(session)
        session.peer.edition = named or Product(LM_STUDIO)
    return session.peer.edition


def find_local_edition(session: Session) -> Plan[Product | None]:
    """Return the LM Studio program that runs on this machine, or None.

    It is found by its API for SDKs.
    """
    for port in lm_studio_api_ports(Path.home(), os.environ):
        named = read_status((yield from session.probe(STATUS, port)))
        if named is not None:
            return named
    return None


def _is_served_by_this_machine(session: Session) -> bool:
    """Whether the client's server is the one that LM Studio's own file names."""
    address = urlsplit(session.address.root)
    is_local = address.hostname in ("localhost", "127.0.0.1", "::1") and session.settings.proxy is None
    return is_local and address.port in [found.value for found in from_lm_studio(Path.home())]
