"""Ask the fake with OpenAI's own package: `pip install openai`, `lmdeck fake examples/fake/scenario.toml`, then this."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:1234/v1"), api_key="lm-studio")
answer = client.chat.completions.create(
    model="qwen2.5-7b-instruct", messages=[{"role": "user", "content": "Say hello."}]
)
print(answer.choices[0].message.content)
