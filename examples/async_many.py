"""Ask several questions at once with the async client, and print each answer as soon as it is complete."""

import asyncio

from lmdeck import AsyncLMStudio

QUESTIONS = ("Name a colour.", "Name a city.", "Name an animal.")


async def main() -> None:
    async with AsyncLMStudio() as lm:
        chat = lm.chat().with_system("Answer in one short sentence.").with_options(max_tokens=40)
        for answer in asyncio.as_completed([chat.user(question).send() for question in QUESTIONS]):
            print("-", (await answer).content)


asyncio.run(main())
