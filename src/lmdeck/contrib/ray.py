"""Batches on Ray: `Ask` for `map_batches`, and the hosts of `lmdeck batch run --ray`.

    import ray
    from lmdeck.contrib.ray import Ask

    rows = ray.data.read_parquet("prompts.parquet")
    rows = rows.map_batches(Ask, fn_constructor_kwargs={"model": "qwen3-4b"}, batch_size=64, concurrency=4)
    rows.write_parquet("answers")

`Ask` needs pyarrow, not Ray: it also serves Dask (`map_partitions`) and Spark (`mapInPandas`).
"""

from __future__ import annotations

from lmdeck.batch.ray import Ask, ray_hosts

__all__ = ["Ask", "ray_hosts"]
