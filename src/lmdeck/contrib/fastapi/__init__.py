"""The FastAPI integration: one client per application, and answers streamed to the browser.

    from fastapi import FastAPI
    from lmdeck.contrib.fastapi import LM, lifespan, stream_response

    app = FastAPI(lifespan=lifespan(base_url="http://localhost:1234"))

    @app.get("/ask")
    async def ask(q: str, lm: LM):
        return stream_response(lm.chat().user(q))

`router()` adds a chat page. `app.add_exception_handler(LMStudioError, error_handler)` answers views that raise an error.
"""

from lmdeck.contrib._extras import missing_extra

try:
    from lmdeck.contrib.fastapi.clients import LM, lifespan
    from lmdeck.contrib.fastapi.errors import error_handler
    from lmdeck.contrib.fastapi.routes import router
    from lmdeck.contrib.fastapi.streaming import stream_response
except ModuleNotFoundError as error:
    raise missing_extra(error, "fastapi") from error

__all__ = ["LM", "error_handler", "lifespan", "router", "stream_response"]
