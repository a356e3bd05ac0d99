"""The chat page: its HTML, and the folder with its scripts, style sheet and libraries."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from msgspec import Struct

STATIC = Path(__file__).parent / "static"
"""The same files for all frameworks."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain", ".json": "application/json"}
"""The media types of the page's files.

Systems may map these names to other types, and browsers run no script of another type.
"""
EXAMPLES = (
    "Explain how a hash table works, with a short example in Python.",
    "Compare SQLite and PostgreSQL in a table.",
    "Write a friendly reminder to a colleague about a meeting.",
)
TITLE = "Chat"
PLACEHOLDER = "Ask something"

_CHAT = Template("""\
<section class="lmdeck-chat" aria-label="Chat" data-ask="$ask" data-conversations="$conversations" data-state="$state" \
data-token="$token">
  <nav id="lmdeck-conversations" aria-label="Conversations">
    <button type="button" class="lmdeck-new">New conversation</button>
    <ul></ul>
  </nav>
  <main>
    <header>
      <button type="button" class="lmdeck-menu lmdeck-icon" aria-label="Conversations" aria-expanded="false" \
aria-controls="lmdeck-conversations"></button>
      <h1>$title</h1>
      <p class="lmdeck-model"></p>
    </header>
    <div class="lmdeck-start">
      <h2>What can I do for you?</h2>
      <p class="lmdeck-state">Looking for the model …</p>
      <ul class="lmdeck-examples">$examples</ul>
    </div>
    <div class="lmdeck-log" role="log" aria-live="polite" aria-busy="false" tabindex="0"></div>
    <button type="button" class="lmdeck-to-end lmdeck-icon" aria-label="Scroll to the end" hidden></button>
    <form>
      <p class="lmdeck-editing" hidden>Your question and everything after it will be replaced.
        <button type="button" class="lmdeck-cancel">Cancel</button></p>
      <ul class="lmdeck-images" aria-label="Images" hidden></ul>
      <div class="lmdeck-field">
        <button type="button" class="lmdeck-attach lmdeck-icon" aria-label="Attach an image"></button>
        <input type="file" class="lmdeck-file" accept="image/*" multiple hidden aria-label="Image">
        <label class="lmdeck-hidden" for="lmdeck-text">Your question</label>
        <textarea id="lmdeck-text" rows="1" placeholder="$placeholder" required disabled \
maxlength="100000"></textarea>
        <button type="submit" class="lmdeck-send lmdeck-icon" aria-label="Send"></button>
        <button type="button" class="lmdeck-stop lmdeck-icon" aria-label="Stop" hidden></button>
      </div>
    </form>
    <p class="lmdeck-status" role="status"></p>
  </main>
  <dialog class="lmdeck-dialog" aria-labelledby="lmdeck-dialog-title">
    <form method="dialog">
      <h2 id="lmdeck-dialog-title"></h2>
      <input type="text" aria-labelledby="lmdeck-dialog-title" maxlength="60" autocomplete="off">
      <p><button type="button" class="lmdeck-dismiss">Cancel</button> <button class="lmdeck-confirm" value="yes"></button></p>
    </form>
  </dialog>
</section>""")

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content">
  <meta name="color-scheme" content="light dark">
  <title>$title</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="$static/chat.css">
</head>
<body class="lmdeck-page">
$chat
<script type="module" src="$static/chat.js"></script>
</body>
</html>
""")


class PageUrls(Struct, frozen=True, kw_only=True):
    """The URLs that the page's script calls; `conversations` ends with a slash."""

    ask: str
    conversations: str
    state: str


def page(urls: PageUrls, *, static: str, title: str = TITLE, examples: Sequence[str] = EXAMPLES) -> str:
    """Return the page; `static` is the URL of its files."""
    chat = chat_section(urls, title=title, examples=examples)
    return _PAGE.substitute(title=escape(title), static=escape(static), chat=chat)


def chat_section(
    urls: PageUrls,
    *,
    title: str = TITLE,
    placeholder: str = PLACEHOLDER,
    token: str = "",
    examples: Sequence[str] = EXAMPLES,
) -> str:
    """Return the chat element, for a page that loads the script and the style sheet.

    All values are escaped.

    `token` is a CSRF token.
    """
    buttons = "".join(f'<li><button type="button">{escape(example)}</button></li>' for example in examples)
    values = {
        "ask": urls.ask,
        "conversations": urls.conversations,
        "state": urls.state,
        "title": title,
        "placeholder": placeholder,
        "token": token,
    }
    return _CHAT.substitute({name: escape(value) for name, value in values.items()}, examples=buttons)
