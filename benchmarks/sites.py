"""A page in each web framework that streams an answer to the browser, with lmdeck and with openai-python.

    python benchmarks/sites.py FRAMEWORK CLIENT --port PORT --upstream URL

Each answers `/ask?model=…` with server-sent events. FastAPI and Django run on uvicorn, Flask on gunicorn's threads: one process
that serves.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

MESSAGES: Any = [{"role": "user", "content": "Count the sheep."}]
MEDIA_TYPE = "text/event-stream"
CONCURRENCY = 5_000
THREADS = 512


def event(**fields: str) -> str:
    """Write an event as lmdeck's pages do."""
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n"


def openai_events(upstream: str) -> Callable[[str], AsyncIterator[str]]:
    """Return a function that streams the answer of `AsyncOpenAI` as events."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{upstream}/v1", api_key="none")

    async def events(model: str) -> AsyncIterator[str]:
        async with await client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
            async for chunk in stream:
                if chunk.choices and (text := chunk.choices[0].delta.content):
                    yield event(type="content", text=text)
        yield event(type="done")

    return events


def fastapi_lmdeck(upstream: str) -> Any:
    from fastapi import FastAPI

    from lmdeck.contrib.fastapi import LM, lifespan, stream_response

    app = FastAPI(lifespan=lifespan(base_url=upstream, max_concurrency=CONCURRENCY))

    async def ask(model: str, lm: LM) -> object:
        return stream_response(lm.chat(model).with_messages(MESSAGES))

    ask.__annotations__["lm"] = LM
    app.get("/ask")(ask)
    return app


def fastapi_openai(upstream: str) -> Any:
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app, events = FastAPI(), openai_events(upstream)

    @app.get("/ask")
    async def ask(model: str) -> StreamingResponse:
        return StreamingResponse(events(model), media_type=MEDIA_TYPE)

    return app


def django_site(ask: Callable[[Any], Any], **settings: Any) -> Any:
    """Return the ASGI application of a Django project with one view."""
    from django.conf import settings as configured
    from django.core.asgi import get_asgi_application
    from django.urls import path

    urls = type("urls", (), {"urlpatterns": [path("ask", ask)]})
    configured.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="none", **settings)
    return get_asgi_application()


def django_lmdeck(upstream: str) -> Any:
    async def ask(request: Any) -> object:
        from lmdeck.contrib.django import alm, stream_response

        return stream_response(alm.chat(request.GET["model"]).with_messages(MESSAGES))

    client = {"BASE_URL": upstream, "MAX_CONCURRENCY": CONCURRENCY}
    return django_site(ask, LMDECK=client, INSTALLED_APPS=["lmdeck.contrib.django"])


def django_openai(upstream: str) -> Any:
    events = openai_events(upstream)

    async def ask(request: Any) -> object:
        from django.http import StreamingHttpResponse

        return StreamingHttpResponse(events(request.GET["model"]), content_type=MEDIA_TYPE)

    return django_site(ask)


def flask_lmdeck(upstream: str) -> Any:
    from flask import Flask, request

    from lmdeck.contrib.flask import LMDeck, stream_response

    app = Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": upstream, "MAX_CONCURRENCY": CONCURRENCY}
    extension = LMDeck(app)

    @app.get("/ask")
    def ask() -> object:
        return stream_response(extension.client.chat(request.args["model"]).with_messages(MESSAGES))

    return app


def flask_openai(upstream: str) -> Any:
    from flask import Flask, Response, request
    from openai import OpenAI

    app, client = Flask(__name__), OpenAI(base_url=f"{upstream}/v1", api_key="none")

    def events(model: str) -> Iterator[str]:
        with client.chat.completions.create(model=model, messages=MESSAGES, stream=True) as stream:
            for chunk in stream:
                if chunk.choices and (text := chunk.choices[0].delta.content):
                    yield event(type="content", text=text)
        yield event(type="done")

    @app.get("/ask")
    def ask() -> Response:
        return Response(events(request.args["model"]), mimetype=MEDIA_TYPE)

    return app


SITES = {
    ("FastAPI", "lmdeck"): fastapi_lmdeck,
    ("Django", "lmdeck"): django_lmdeck,
    ("Flask", "lmdeck"): flask_lmdeck,
    ("FastAPI", "openai-python"): fastapi_openai,
    ("Django", "openai-python"): django_openai,
    ("Flask", "openai-python"): flask_openai,
}


def serve_wsgi(make: Callable[[], Any], port: int) -> None:
    """Serve with gunicorn's threads: the application is made in the worker, which is the process that is measured."""
    from gunicorn.app.base import BaseApplication

    class Serving(BaseApplication):
        def load_config(self) -> None:
            settings = {"bind": f"127.0.0.1:{port}", "worker_class": "gthread", "threads": THREADS, "loglevel": "error"}
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return make()

    Serving().run()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("framework", choices=sorted({framework for framework, _ in SITES}))
    parser.add_argument("client", choices=sorted({client for _, client in SITES}))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    make = SITES[options.framework, options.client]
    if options.framework == "Flask":
        serve_wsgi(lambda: make(options.upstream), options.port)
    else:
        import uvicorn

        os.environ.setdefault("WEB_CONCURRENCY", "1")
        uvicorn.run(make(options.upstream), host="127.0.0.1", port=options.port, log_level="error")


if __name__ == "__main__":
    main()
