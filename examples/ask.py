"""Ask one question and print the answer: `python examples/ask.py "Why is the sky blue?"`."""

import sys

import lmdeck

question = " ".join(sys.argv[1:]) or "Say hello in five words."
reply = lmdeck.chat().user(question).with_options(max_tokens=200).send()

print(reply.content)
print(f"[{reply.model}: {reply.stats.tokens_per_second or 0:.1f} tokens/s, {reply.finish_reason}]")
