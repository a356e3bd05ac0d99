"""The chat page: its HTML, and the folder with its script and style sheet."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

STATIC = Path(__file__).parents[1] / "contrib" / "django" / "static" / "lmdeck"
"""The script and the style, which are the same for all; Django finds such files only in a folder of its application."""

_CHAT = Template("""\
<section class="lmdeck-chat" aria-label="Chat" data-ask="$ask" data-conversations="$conversations" data-token="$token">
  <nav aria-label="Conversations"><button type="button" class="lmdeck-new">New conversation</button><ul></ul></nav>
  <main>
    <div class="lmdeck-log" role="log" aria-live="polite" aria-busy="false" tabindex="0"></div>
    <form>
      <label class="lmdeck-hidden" for="lmdeck-text">Your question</label>
      <textarea id="lmdeck-text" rows="2" placeholder="$placeholder" autofocus required maxlength="100000"></textarea>
      <button type="submit" class="lmdeck-send">Send</button>
      <button type="button" class="lmdeck-stop" hidden>Stop</button>
    </form>
    <p class="lmdeck-status" role="status"></p>
  </main>
</section>""")

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
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


def page(
    *,
    ask: str,
    conversations: str,
    static: str,
    title: str = "Chat",
    placeholder: str = "Ask something",
    token: str = "",
) -> str:
    """Return the page; `ask`, `conversations` (with a final slash) and `static` are URLs, `token` is a CSRF token."""
    chat = chat_section(ask=ask, conversations=conversations, placeholder=placeholder, token=token)
    return _PAGE.substitute(title=escape(title), static=escape(static), chat=chat)


def chat_section(*, ask: str, conversations: str, placeholder: str, token: str) -> str:
    """Return the chat element for a page that loads the script and the style sheet; the values are escaped."""
    values = {"ask": ask, "conversations": conversations, "placeholder": placeholder, "token": token}
    return _CHAT.substitute({name: escape(value) for name, value in values.items()})
