"""Encodings of an answer as server-sent events: lmdeck's own for its page, AG-UI and the Vercel AI SDK."""
