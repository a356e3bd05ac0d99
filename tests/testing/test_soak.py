"""Random faults over 64 chats at once: every one ends in the right reply or the right error, within its limits.

`make soak` runs it for ten minutes with a seed of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from test_fake_faults import ERRORS, SILENT

from asking import nothing_left_behind
from lmdeck import AsyncChat, AsyncLMStudio, Chat, LMStudio, LMStudioError, Reply
from lmdeck._parsing.dialects import REGISTRY
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.faults import FAULTS
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE

if TYPE_CHECKING:
    from lmdeck.testing import SentRequest

SECONDS = float(os.environ.get("LMDECK_SOAK_SECONDS", "8"))
SEED = int(os.environ.get("LMDECK_SOAK_SEED", "1"))
ASYNC_CHATS, SYNC_CHATS = 48, 16
SETTINGS: dict[str, Any] = {
    "model": "busy",
    "timeout": 2 * PATIENCE,
    "first_token_timeout": 2 * PATIENCE,
    "retry_attempts": 1,
    "max_concurrency": 64,
}
IMPATIENT = {**SETTINGS, "timeout": 1.0, "first_token_timeout": 2.0}
"""For silent servers, whose chats must end with a limit: on a busy machine others could, too, if theirs were as short."""
NAMES = [None, *(name for name in FAULTS if name != "refuse")]
WRITING = [name for name, dialect in REGISTRY.items() if dialect.writes is not None]


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return city


def answer(request: SentRequest) -> Answer:
    """Return what the question asks for: `fault kind number`."""
    fault, kind, number = request.last_user.split()
    if kind == "text":
        made = Answer(content=text(number), reasoning=f"because {number}")
    else:
        call = PlannedCall(name="get_weather", arguments={"city": f"Zürich {number}"})
        made = Answer(calls=(call,), dialect=None if kind == "native" else kind)
    return made if fault == "none" else msgspec.structs.replace(made, fault=fault)


def text(number: str) -> str:
    return f"Answer {number}: " + "naïve café 🙂 " * (int(number) % 20) + "end"


class Soak:
    """One run: what is asked, and what came of it."""

    def __init__(self) -> None:
        self.ends = time.monotonic() + SECONDS
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0

    def questions(self, seed: int) -> Any:
        rng = random.Random(f"{SEED}:{seed}")
        while time.monotonic() < self.ends:
            fault = rng.choice(NAMES)
            kind = rng.choice(["text", "text", "native", rng.choice(WRITING)])
            yield fault, kind, str(rng.randrange(10_000)), rng.random() < 0.6

    def judge(self, fault: str | None, kind: str, number: str, outcome: Reply | LMStudioError, began: float) -> None:
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        told = f"{fault}, {kind}, {number}: {outcome!r}"
        if isinstance(outcome, LMStudioError):
            self.outcomes["error"] += 1
            assert fault is not None, told
            assert type(outcome).__name__ in ERRORS.get(fault, "").split(), told
            return
        self.outcomes["reply"] += 1
        assert fault is None or FAULTS[fault].expect == "right", told
        if kind == "text":
            assert outcome.content == text(number), told
        else:
            assert [call.arguments for call in outcome.tool_calls] == [{"city": f"Zürich {number}"}], told
            assert outcome.content == "", told

    async def tell(self) -> None:
        """Say every half minute how far it is."""
        while (left := self.ends - time.monotonic()) > 0:
            await asyncio.sleep(min(30.0, left))
            print(
                f"\n{self.outcomes.total()} chats, {max(0.0, self.ends - time.monotonic()):.0f} s to go",
                end="",
                flush=True,
            )

    async def chat_async(self, patient: AsyncLMStudio, impatient: AsyncLMStudio, seed: int) -> None:
        for fault, kind, number, is_streamed in self.questions(seed):
            alm = impatient if fault in SILENT else patient
            chat: AsyncChat = alm.chat().user(f"{fault or 'none'} {kind} {number}").with_tools([get_weather])
            began = time.monotonic()
            try:
                if is_streamed:
                    async with chat.stream() as stream:
                        outcome: Reply | LMStudioError = await stream.until_done()
                else:
                    outcome = await chat.send()
            except LMStudioError as error:
                outcome = error
            self.judge(fault, kind, number, outcome, began)

    def chat_sync(self, patient: LMStudio, impatient: LMStudio, seed: int) -> None:
        for fault, kind, number, is_streamed in self.questions(seed):
            lm = impatient if fault in SILENT else patient
            chat: Chat = lm.chat().user(f"{fault or 'none'} {kind} {number}").with_tools([get_weather])
            began = time.monotonic()
            try:
                if is_streamed:
                    with chat.stream() as stream:
                        outcome: Reply | LMStudioError = stream.until_done()
                else:
                    outcome = chat.send()
            except LMStudioError as error:
                outcome = error
            self.judge(fault, kind, number, outcome, began)


@pytest.mark.no_cover  # 64 chats and their server share one process: measured, they would wait for each other
async def test_random_faults_over_64_chats() -> None:
    soak = Soak()
    with nothing_left_behind(), FakeLMStudio(seed=SEED) as fake:
        fake.add_model("busy", parallel=64)
        fake.when(lambda _: True).respond(answer)
        async with fake.async_client(**SETTINGS) as patient, fake.async_client(**IMPATIENT) as impatient:
            with fake.client(**SETTINGS) as lm, fake.client(**IMPATIENT) as impatient_lm:
                await asyncio.gather(
                    soak.tell(),
                    *(soak.chat_async(patient, impatient, seed) for seed in range(ASYNC_CHATS)),
                    *(
                        asyncio.to_thread(soak.chat_sync, lm, impatient_lm, ASYNC_CHATS + seed)
                        for seed in range(SYNC_CHATS)
                    ),
                )
        await asyncio.get_running_loop().shutdown_default_executor()
        assert asyncio.all_tasks() == {asyncio.current_task()}
    total = soak.outcomes.total()
    print(
        f"\n{total} chats in {SECONDS:g} s, seed {SEED}: {dict(soak.outcomes)}, the slowest took {soak.slowest:.1f} s"
    )
    assert total >= ASYNC_CHATS + SYNC_CHATS
    assert soak.outcomes["reply"] > total / 10
