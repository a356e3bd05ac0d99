#!/bin/sh
# Ask the fake with curl: `lmdeck fake examples/fake/scenario.toml`, then this.
curl --silent --show-error --fail "${OPENAI_BASE_URL:-http://127.0.0.1:1234/v1}/chat/completions" \
  --header 'Content-Type: application/json' \
  --data '{"model": "qwen2.5-7b-instruct", "messages": [{"role": "user", "content": "Say hello."}]}'
echo
