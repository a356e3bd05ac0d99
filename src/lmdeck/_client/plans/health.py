"""The health check as a plan: the model list and, if it does not identify the product, a probe or two."""

from __future__ import annotations

import time
from collections.abc import Callable

from lmdeck._client.plans.model_lists import Listing, ask_listing
from lmdeck._client.session import Session
from lmdeck._pipeline.effects import Plan
from lmdeck._responses.server_detection import (
    UNKNOWN_PRODUCT,
    Product,
    probe_paths,
    product_from_error,
    recognize,
    refine,
)
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
    """Return the product that sent the list; LM Studio and lmdeck's engine need no further request."""
    product = recognize(listing.api, listing.body, listing.headers, listing.refusals)
    product = Product(product.name or session.peer.product, product.version)
    asked: set[str] = set()
    while path := next((each for each in probe_paths(product) if each not in asked), None):
        asked.add(path)
        product = refine(path, (yield from session.probe(path)), product)
    session.peer.product = product.name or UNKNOWN_PRODUCT
    return product
