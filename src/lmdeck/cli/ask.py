"""`lmdeck ask`: one question and its answer, also in a pipe."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import msgspec
import typer

from lmdeck._client.chat import Chat
from lmdeck._client.clients import LMStudio
from lmdeck.cli.plain_output import echo_json, safe, write
from lmdeck.cli.shared_options import Model, System
from lmdeck.cli.waiting import waiting
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Reply

STDIN_CHARS = 4 << 20


def ask(
    context: typer.Context,
    question: Annotated[
        str, typer.Argument(metavar="[QUESTION]", help="The question; text from a pipe is appended.")
    ] = "",
    model: Model = None,
    system: System = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="An image: a file or a web address; repeatable.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The maximum number of tokens to generate.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", min=0.0, help="The sampling temperature, such as 0.7.")
    ] = None,
    stream: Annotated[bool, typer.Option(help="Show the answer while it is generated.")] = True,
    stats: Annotated[bool, typer.Option("--stats", help="Print the speed on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the complete reply as JSON.")] = False,
) -> None:
    """Ask one question and print the answer.

    Examples: `lmdeck ask "Why is the sky blue?"`, `git diff | lmdeck ask "Write a commit message."`
    """
    prompt = _prompt(question)
    with context.obj.client() as lm:
        chat = lm.chat(model)
        chat = chat.with_system(system) if system else chat
        chat = chat.user(prompt, images=[_image(lm, name) for name in image or ()])
        chat = chat.with_options(max_tokens=max_tokens, temperature=temperature)
        reply = _streamed(chat) if stream and not as_json else _whole(chat)
    if as_json:
        echo_json(_as_data(reply))
    elif not stream:
        typer.echo(safe(reply.content))
    if stats:
        from lmdeck.cli.terminal import errors, stats_line

        errors.print(stats_line(reply))


def _image(lm: LMStudio, name: str) -> str | bytes:
    """Return a file name unchanged; fetch a web address."""
    if not name.startswith(("http://", "https://")):
        return name
    with waiting("downloading the image"):
        return lm.fetch_image(name)


def _prompt(question: str) -> str:
    """Return the question followed by the text of a pipe."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read(STDIN_CHARS).strip()
    prompt = "\n\n".join(part for part in (question.strip(), piped) if part)
    if not prompt:
        raise ConfigurationError("The question is empty.", hint='Pass a question: lmdeck ask "Why is the sky blue?"')
    return prompt


def _whole(chat: Chat) -> Reply:
    with waiting("waiting for the answer"):
        return chat.send()


def _streamed(chat: Chat) -> Reply:
    with ExitStack() as stack:
        with waiting("waiting for the first token"):
            stream = stack.enter_context(chat.stream())
        stack.callback(write, "\n")
        for text in stream.text():
            write(safe(text))
    return stream.reply


def _as_data(reply: Reply) -> dict[str, object]:
    return {**reply.to_dict(), "stats": msgspec.to_builtins(reply.stats)}
