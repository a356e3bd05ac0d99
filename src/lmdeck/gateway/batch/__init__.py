"""OpenAI's `/v1/files` and `/v1/batches`: files on disk, and batches that run over the gateway's own hosts."""
