"""See what a failure looks like: every error says what happened and what to do next."""

import lmdeck

with lmdeck.LMStudio(port=9, retry_attempts=1, connect_timeout=1) as lm:
    try:
        lm.chat().user("Is anybody there?").send()
    except lmdeck.LMStudioError as error:
        print(f"{type(error).__name__}: {error.message}")
        print("What to do:", error.hint)
