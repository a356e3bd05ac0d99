"""The model lists of all hosts as one, in LM Studio's three formats, with the aliases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

from lmdeck.errors import ModelNotFoundError
from lmdeck.gateway.admission import Principal
from lmdeck.gateway.config import Config
from lmdeck.gateway.hosts import Host
from lmdeck.gateway.http import Access, Endpoint, HTTPAnswer, HTTPRequest, json_answer
from lmdeck.model_info import ModelInfo

__all__ = ["listing_routes"]

LISTS = {"/v1/models": "openai", "/api/v0/models": "v0", "/api/v1/models": "v1"}


class ListingGateway(Protocol):
    """What the lists need of a gateway."""

    hosts: list[Host]
    config: Config


def listing_routes(gateway: ListingGateway) -> Iterator[tuple[str, str, Endpoint, Access]]:
    """Yield the endpoints: method, path, endpoint and access."""
    for path, api in LISTS.items():
        yield "GET", path, partial(_list, gateway, api), "key"
        if api != "v1":  # LM Studio's own API has no such endpoint
            yield "GET", f"{path}/{{model:path}}", partial(_find, gateway, api), "key"


async def _list(gateway: ListingGateway, api: str, incoming: HTTPRequest) -> HTTPAnswer:
    return json_answer(list_models(api, gateway.hosts, gateway.config, incoming.principal))


async def _find(gateway: ListingGateway, api: str, incoming: HTTPRequest) -> HTTPAnswer:
    name = incoming.params["model"]
    return json_answer(find_model(api, name, gateway.hosts, gateway.config, incoming.principal))


def list_models(api: str, hosts: Iterable[Host], config: Config, principal: Principal) -> dict[str, Any]:
    """Return the body of a model list: the models that a key may use, and which hosts have them."""
    found: dict[str, list[tuple[Host, ModelInfo]]] = {}
    for host in hosts:
        if host.is_up:
            for key in {info.key: None for info in host.models.values()}:
                if principal.may_use(key):
                    found.setdefault(key, []).append((host, host.models[key]))
    write = _WRITERS[api]
    entries = [
        {**write(key, places), "lmdeck": {"hosts": [host.name for host, _ in places]}} for key, places in found.items()
    ]
    if api == "openai":
        entries += [
            {"id": alias, "object": "model", "owned_by": "lmdeck", "lmdeck": {"alias_of": config.models_of(alias)}}
            for alias in config.aliases
            if principal.may_use(alias) and alias not in found
        ]
        return {"object": "list", "data": entries}
    return {"models": entries} if api == "v1" else {"object": "list", "data": entries}


def find_model(api: str, name: str, hosts: Iterable[Host], config: Config, principal: Principal) -> dict[str, Any]:
    """Return the entry of one model.

    Raises:
        ModelNotFoundError: No host has it, or the key may not use it.
    """
    listed = list_models(api, hosts, config, principal)
    entries = listed.get("data") or listed.get("models") or []
    found: dict[str, Any] | None = next(
        (entry for entry in entries if name in (entry.get("id"), entry.get("key"))), None
    )
    if found is None:
        raise ModelNotFoundError(f"No host has the model {name!r}.", status=404, code="model_not_found")
    return found


def _openai(key: str, _: list[tuple[Host, ModelInfo]]) -> dict[str, Any]:
    return {"id": key, "object": "model", "owned_by": "organization_owner"}


def _v0(key: str, places: list[tuple[Host, ModelInfo]]) -> dict[str, Any]:
    info = places[0][1]
    loaded = next((one for _, each in places for one in each.instances), None)
    entry: dict[str, Any] = {
        "id": key,
        "object": "model",
        "type": {"embedding": "embeddings"}.get(info.type, info.type),
        "publisher": info.publisher,
        "arch": info.architecture,
        "compatibility_type": info.format,
        "quantization": info.quantization,
        "state": "loaded" if any(host.is_loaded(key) for host, _ in places) else "not-loaded",
        "max_context_length": info.max_context_length,
    }
    if loaded is not None and loaded.context_length is not None:
        entry["loaded_context_length"] = loaded.context_length
    return entry


def _v1(key: str, places: list[tuple[Host, ModelInfo]]) -> dict[str, Any]:
    host, info = places[0]
    entry: Mapping[str, Any] = host.entries.get(key, {}) if host.api == "v1" else {}
    instances = [
        {"id": one.id, "config": one.config or {"context_length": one.context_length}}
        for _, each in places
        for one in each.instances
    ]
    return {
        "type": "llm" if info.type == "vlm" else info.type,
        "publisher": info.publisher,
        "key": key,
        "display_name": info.display_name or key,
        "architecture": info.architecture,
        "quantization": None if info.quantization is None else {"name": info.quantization},
        "size_bytes": info.size_bytes,
        "params_string": info.params,
        "max_context_length": info.max_context_length,
        "format": info.format,
        **entry,
        "loaded_instances": instances,
    }


_WRITERS = {"openai": _openai, "v0": _v0, "v1": _v1}
