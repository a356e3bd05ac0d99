"""Detection of the product that answers, and of its version.

It uses responses that are received anyway and, if they do not show the product, one or two small requests.

Sources: llama.cpp's server sends `Server: llama.cpp` and reports its build in `/props` (`tools/server/README.md`); Ollama has
`/api/version` (`docs/api.md`) and names the owner of its own models `library`; vLLM has `/version`; LiteLLM sends
`x-litellm-version` with a model's answers, answers "I'm alive!" at `/health/liveliness`, and older ones report their version at
`/health/readiness` (LiteLLM docs `proxy/health`); LM Studio answers `/lmstudio-greeting`, which is how `lms` finds it
(`lms/src/createClient.ts`), and an unknown path with status 200 and its own message. Which of LM Studio's programs answers
(the app, its daemon llmster, or Bionic), and its version, is at `/lms-status`, on newer servers or on the port of the API
for its SDKs (`lms/src/localAPIServer.ts`, `lms-common/src/apiServerPorts.ts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from lmdeck.model_info import ApiLevel

LM_STUDIO, LLAMA_CPP, OLLAMA, VLLM, LITELLM = "LM Studio", "llama.cpp", "Ollama", "vLLM", "LiteLLM"
UNKNOWN_PRODUCT = "an OpenAI-compatible server"
OWNERS = {
    "organization_owner": LM_STUDIO,
    "llamacpp": LLAMA_CPP,
    "library": OLLAMA,
    "vllm": VLLM,
    "sglang": "SGLang",
    "tabbyapi": "TabbyAPI",
    "koboldcpp": "KoboldCpp",
}
SERVERS = {"lmdeck": "lmdeck engine", "lmdeck-fake": "lmdeck fake", "llama.cpp": LLAMA_CPP}
GREETING = "/lmstudio-greeting"
STATUS = "/lms-status"
PACKAGES = {"llmster": "llmster", "bionic": "Bionic"}
ALIVE = "/health/liveliness"
VERSION_PROBES = {
    LLAMA_CPP: ("/props", "build_info"),
    OLLAMA: ("/api/version", "version"),
    VLLM: ("/version", "version"),
    LITELLM: ("/health/readiness", "litellm_version"),
}
MAX_VERSION_LENGTH = 60


class Product(Struct, frozen=True):
    """The product that answers; name and version are None if unknown."""

    name: str | None = None
    version: str | None = None


def recognize(api: ApiLevel, body: object, headers: Mapping[str, str], refusals: Sequence[str] = ()) -> Product:
    """Return the product that sent a model list.

    It is recognized by headers, API, the owner of models and earlier errors.
    """
    named = _named_by(headers)
    if named is not None:
        return named
    if api != "openai":
        return Product(LM_STUDIO)
    entries = body.get("data") if isinstance(body, Mapping) else None
    owners = [str(entry.get("owned_by")).lower() for entry in entries or () if isinstance(entry, Mapping)]
    owner = next((OWNERS[owner] for owner in owners if owner in OWNERS), None)
    return Product(owner or product_from_error(*refusals))


def _named_by(headers: Mapping[str, str]) -> Product | None:
    """Return the product named by response headers, or None."""
    name, _, version = headers.get("server", "").partition("/")
    if name.lower() in SERVERS:
        return Product(SERVERS[name.lower()], _version(version))
    if headers.get("x-litellm-version"):
        return Product(LITELLM, _version(headers["x-litellm-version"]))
    return None


class Peer:
    """The server as known from its responses; `product` is None until one of them names it.

    `edition` is the LM Studio program that answers, with its version, once this was requested.
    """

    def __init__(self) -> None:
        self.product: str | None = None
        self.edition: Product | None = None

    def read_headers(self, headers: Mapping[str, str]) -> None:
        """Set the product if response headers name it."""
        if "server" in headers or "x-litellm-version" in headers:
            named = _named_by(headers)
            self.product = self.product if named is None else named.name


def product_from_error(*refusals: str) -> str | None:
    """Return the product recognized by its error messages, or None."""
    phrases = ("unexpected endpoint or method", "lm studio api token")
    return LM_STUDIO if any(phrase in refusal.lower() for refusal in refusals for phrase in phrases) else None


def read_status(body: object) -> Product | None:
    """Return the program and the version in an answer of `/lms-status`, or None."""
    package = body.get("package") if isinstance(body, Mapping) else None
    version = _version(body.get("version")) if isinstance(body, Mapping) else None
    if not isinstance(package, str) or version is None:
        return None
    named = (name for word, name in PACKAGES.items() if word in package.lower())
    return Product(next(named, LM_STUDIO), version)


def probe_paths(product: Product) -> tuple[str, ...]:
    """Return the paths to request to learn the rest about the product."""
    if product.name is None:
        return (VERSION_PROBES[OLLAMA][0], GREETING, ALIVE)
    if product.version is None and product.name in VERSION_PROBES:
        return (VERSION_PROBES[product.name][0],)
    return ()


def refine(path: str, body: object, product: Product) -> Product:
    """Return the product refined by the response to a probe; an unexpected body changes nothing."""
    if path == ALIVE:
        return Product(LITELLM) if body == "I'm alive!" else product
    if not isinstance(body, Mapping):
        return product
    if path == GREETING:
        return Product(LM_STUDIO) if body.get("lmstudio") is True else product
    name, field = next((name, field) for name, (probe, field) in VERSION_PROBES.items() if probe == path)
    version = _version(body.get(field))
    return product if version is None else Product(product.name or name, version)


def _version(value: object) -> str | None:
    """Return a value that can be a version, a short printable string, or None."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text and len(text) <= MAX_VERSION_LENGTH and text.isprintable() else None
