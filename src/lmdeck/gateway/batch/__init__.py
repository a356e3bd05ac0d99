"""OpenAI's `/v1/files` and `/v1/batches`: files on disk, batches over the gateway's hosts."""
