"""Print an answer while it is written, and stop it in the middle: leaving the stream stops the model."""

import lmdeck

with lmdeck.chat().user("Count from one to a hundred in words.").with_options(max_tokens=300).stream() as stream:
    words = 0
    for text in stream.text():
        print(text, end="", flush=True)
        words += len(text.split())
        if words >= 40:
            break

print(f"\n[stopped after {len(stream.partial.content)} characters]")
