"""Batches on Ray: rows of a data set, and hosts that are a cluster's nodes.

The public names are in `lmdeck.contrib.ray`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lmdeck._plans.session import Session
from lmdeck.batch.answer_schema import SchemaCheck
from lmdeck.batch.arguments import server_hosts
from lmdeck.batch.batch_hosts import HostAnswer, HostState, ServerHost
from lmdeck.batch.failure_policy import MAX_ATTEMPTS
from lmdeck.batch.input_requests import CHAT, BatchOptions, endpoint_of
from lmdeck.batch.job import input_row
from lmdeck.batch.ledger import Lease, Ledger, StoredRow
from lmdeck.batch.readers import Record
from lmdeck.batch.stored_answers import read_reply
from lmdeck.batch.worker import PATIENCE, Worker, WorkerLimits
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError, LMStudioError, ServerUnreachableError
from lmdeck.messages import Reply
from lmdeck.outputs import Completion, Embeddings

if TYPE_CHECKING:
    from lmdeck.config import ClientSettings

T = TypeVar("T")


class Ask:
    """A callable that answers the rows of a batch; one instance is one client and is reusable.

    Rows have a `prompt`, `input` or `messages` column, or the columns that `template` names. They come as a dict of
    arrays, an Arrow table or a pandas DataFrame, and are returned with the columns `content`, `tool_calls`, `usage` and
    `error` (of embeddings also `embedding`), as a DataFrame if one was given, else as an Arrow table. `prefix` goes
    before these names.

    The rows of a batch are sent together, as many at a time as the host processes in parallel; equal rows are sent
    once. A row that fails is retried as in `LMStudio.batch`, and then has an `error` (`code`, `message`). `settings`
    are those of `LMStudio`.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        endpoint: str = CHAT,
        template: str | None = None,
        system: str | None = None,
        schema: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        dedupe: bool = True,
        hosts: Sequence[str] = (),
        attempts: int = MAX_ATTEMPTS,
        patience: float = PATIENCE,
        prefix: str = "",
        **settings: Any,  # those of `ClientSettings`, which are checked when they are resolved
    ) -> None:
        """Check the arguments; connections are opened later.

        Raises:
            ConfigurationError: An argument is wrong, or pyarrow is not installed.
        """
        self._pyarrow = _pyarrow()
        session = Session(Settings.resolve(settings))
        batch_options = BatchOptions(
            endpoint=endpoint,
            model=model or session.settings.model,
            template=template,
            system=system,
            options=dict(options or {}),
            schema=schema,
            dedupe=dedupe,
        )
        self._options = batch_options.checked()
        self._schema = None if schema is None else SchemaCheck(schema)
        self._limits = WorkerLimits(
            max_concurrency=session.settings.max_concurrency,
            attempts=attempts,
            first_delay=10 * session.settings.retry_delay,
            patience=patience,
            waits_at_start=True,
        )
        self._prefix = prefix
        self._hosts = server_hosts(session, hosts, session.settings.max_concurrency)
        self._loop = _LoopThread()

    def __call__(self, batch: Any) -> Any:
        """Return the rows of a batch with their answers.

        Raises:
            ConfigurationError: A column of the rows has the name of one to be added.
            LMStudioError: No row can be answered: no host answers, the token is refused, or a budget is used up.
        """
        is_pandas = hasattr(batch, "iloc")
        table = self._table(batch)
        taken = sorted({self._prefix + name for name in self._types()} & set(table.column_names))
        if taken:
            raise ConfigurationError(
                f"The rows already have a column {taken[0]!r}.", hint='Pass prefix="answer_", or rename the column.'
            )
        stored = self._loop.run(self._answered(table.to_pylist())) if table.num_rows else []
        for name, kind in self._types().items():
            values = [self._columns(row)[name] for row in stored]
            table = table.append_column(self._prefix + name, self._pyarrow.array(values, kind))
        return table.to_pandas() if is_pandas else table

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self._loop.run(_closed(self._hosts))

    def _table(self, batch: Any) -> Any:
        if isinstance(batch, Mapping):
            columns = {name: column.tolist() if hasattr(column, "tolist") else column for name, column in batch.items()}
            return self._pyarrow.table(columns)
        if hasattr(batch, "iloc"):
            return self._pyarrow.Table.from_pandas(batch, preserve_index=False)
        return batch

    async def _answered(self, rows: list[dict[str, Any]]) -> list[StoredRow]:
        """Answer rows like a batch with a ledger in memory."""
        ledger = Ledger(None)
        try:
            records = [
                Record(number, {name: value for name, value in row.items() if value is not None})
                for number, row in enumerate(rows)
            ]
            ledger.add_rows(0, [input_row(number, record, self._options) for number, record in enumerate(records)])
            await Worker(ledger, self._hosts, self._limits, schema=self._schema).run()
            return list(ledger.rows())
        finally:
            ledger.close()

    def _types(self) -> dict[str, Any]:
        """Return the types of the added columns."""
        pa = self._pyarrow
        text, number = pa.string(), pa.int64()
        types = {
            "content": text,
            "tool_calls": pa.list_(pa.struct([("id", text), ("name", text), ("arguments", text)])),
            "usage": pa.struct([("prompt_tokens", number), ("completion_tokens", number)]),
            "error": pa.struct([("code", text), ("message", text)]),
        }
        if endpoint_of(self._options.endpoint)[1] == "embeddings":
            types["embedding"] = pa.list_(pa.float32())
        return types

    @staticmethod
    def _columns(row: StoredRow) -> dict[str, Any]:
        columns: dict[str, Any] = dict.fromkeys(("content", "usage", "error", "embedding"))
        columns["tool_calls"] = []
        if row.answer is None:
            columns["error"] = None if row.error is None else {"code": row.error.code, "message": row.error.message}
            return columns
        reply = read_reply(row.endpoint, row.answer)
        if reply.usage is not None:
            completion = getattr(reply.usage, "completion_tokens", 0)
            columns["usage"] = {"prompt_tokens": reply.usage.prompt_tokens, "completion_tokens": completion}
        match reply:
            case Reply():
                columns["content"] = reply.content
                columns["tool_calls"] = [
                    {"id": call.id, "name": call.name, "arguments": call.raw_arguments} for call in reply.tool_calls
                ]
            case Completion():
                columns["content"] = reply.text
            case Embeddings():
                columns["embedding"] = reply.vectors[0] if len(reply.vectors) == 1 else None
        return columns


class _LoopThread:
    """An event loop in a daemon thread, so that one async client serves calls from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="lmdeck-ask", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _closed(hosts: Sequence[ServerHost]) -> None:
    for host in hosts:
        await host.aclose()


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # an extra
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "`Ask` needs the package pyarrow, which is not installed.",
            hint='Install it with `pip install "lmdeck[batch]"`.',
        ) from error
    return pa


# --- `lmdeck batch run --ray` ---------------------------------------------------------------------------------------------


class RayHost:
    """A host that is used through an actor on a node of a Ray cluster."""

    def __init__(self, actor: Any, node: str, root: str) -> None:
        self.name = f"{root} from {node}"
        self._actor = actor
        self._root = root

    async def ask(self, lease: Lease) -> HostAnswer:
        """Return the answer that the actor received.

        Raises:
            LMStudioError: It got none, or its node is gone.
        """
        result: HostAnswer = await self._called("ask", lease)
        return result

    async def look_up(self) -> HostState:
        """Return the state of the host, as the actor sees it.

        Raises:
            LMStudioError: The host or the node does not answer.
        """
        result: HostState = await self._called("look_up")
        return result

    async def aclose(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._actor)

    async def _called(self, name: str, *arguments: object) -> Any:
        from ray.exceptions import RayError

        try:
            result = await getattr(self._actor, name).remote(self._root, *arguments)
        except RayError as error:
            raise ServerUnreachableError(
                f"The Ray actor for {self.name} is gone: {str(error).splitlines()[0]}.", hint="Look at `ray status`."
            ) from error
        if isinstance(result, LMStudioError):
            raise result
        return result


class _Asker:
    """The actor: it sends requests to hosts, and returns errors as values, which Ray would wrap."""

    def __init__(self, settings: ClientSettings, hosts: Sequence[str]) -> None:
        session = Session(Settings.resolve(settings))
        servers = server_hosts(session, hosts, session.settings.max_concurrency)
        self._hosts = {host.name: host for host in servers}

    async def ask(self, root: str, lease: Lease) -> HostAnswer | LMStudioError:
        try:
            return await self._hosts[root].ask(lease)
        except LMStudioError as error:
            return error

    async def look_up(self, root: str) -> HostState | LMStudioError:
        try:
            return await self._hosts[root].look_up()
        except LMStudioError as error:
            return error


def ray_hosts(address: str, settings: ClientSettings, hosts: Sequence[str] = ()) -> list[RayHost]:
    """Return the hosts of a batch as seen from each node of a Ray cluster.

    `localhost` is the node itself.

    `address` is that of the cluster, `"auto"` for the one of this machine, or `"local"` to start one. An actor whose node dies
    is started again on another node.

    Raises:
        ConfigurationError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "Batches on Ray need the package ray, which is not installed.",
            hint='Install it with `pip install "lmdeck[ray]"`.',
        ) from error
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"There is no Ray cluster at {address!r}: {str(error).splitlines()[0]}.",
            hint="Start one with `ray start --head`, or pass its address.",
        ) from error
    roots = [host.name for host in server_hosts(Session(Settings.resolve(settings)), hosts, None)]
    actor = ray.remote(max_restarts=-1, max_concurrency=1000, num_cpus=0)(_Asker)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    addresses = [node["NodeManagerAddress"] for node in nodes]
    found = []
    for node, name in zip(nodes, addresses, strict=True):
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        asker = actor.options(scheduling_strategy=strategy).remote(settings, hosts)
        shown = name if addresses.count(name) == 1 else f"{name} ({node['NodeID'][:8]})"
        found += [RayHost(asker, shown, root) for root in roots]
    return found
