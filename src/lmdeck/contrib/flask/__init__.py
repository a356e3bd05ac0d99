"""The Flask integration: one client per process, and answers streamed to the browser.

    from flask import Flask
    from lmdeck.contrib.flask import LMDeck, stream_response

    app = Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": "http://localhost:1234"}
    lmdeck = LMDeck(app)

    @app.get("/ask")
    def ask():
        return stream_response(lmdeck.client.chat().user("Why is the sky blue?"))

`blueprint()` adds a chat page. `app.register_error_handler(LMStudioError, error_handler)` answers views that raise an error.
"""

from lmdeck.contrib._extras import missing_extra

try:
    from lmdeck.contrib.flask.errors import error_handler
    from lmdeck.contrib.flask.extension import LMDeck
    from lmdeck.contrib.flask.routes import blueprint
    from lmdeck.contrib.flask.streaming import stream_response
except ModuleNotFoundError as error:
    raise missing_extra(error, "flask") from error

__all__ = ["LMDeck", "blueprint", "error_handler", "stream_response"]
