"""Handlers: your code around every request of a client, written once for sync and async.

    client = lmdeck.LMStudio(handlers=[Cache])

A handler factory takes the next handler and returns a handler: a callable of one `Call` that returns a plan. A plan is a
generator: `stream = yield from self.inner(call)` runs the next handler, and its return value is the `ResponseStream` that the
application reads. A handler may look at the call, refuse it by raising an `LMStudioError`, send it more than once, follow its
response with a `StreamObserver`, or answer it from recorded bytes with `ResponseStream.replay`.
"""

from lmdeck._pipeline.calls import Call, Handler, HandlerFactory, R, ResponseStream, StreamObserver
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.retry import RetryPolicy
from lmdeck._transport import WireRequest

__all__ = [
    "Call",
    "Handler",
    "HandlerFactory",
    "Plan",
    "R",
    "ResponseStream",
    "RetryPolicy",
    "StreamObserver",
    "WireRequest",
]
