"""Which product answers, and its version: from what it sent anyway, and from one or two small requests where that is silent.

Sources: llama.cpp's server sends `Server: llama.cpp` and tells its build in `/props` (`tools/server/README.md`); Ollama has
`/api/version` (`docs/api.md`) and names the owner of its own models `library`; vLLM has `/version`; LiteLLM sends
`x-litellm-version` with a model's answers, says "I'm alive!" at `/health/liveliness`, and older ones tell their version at
`/health/readiness` (LiteLLM docs `proxy/health`); LM Studio answers `/lmstudio-greeting`, which
is how `lms` finds it (`lms/src/createClient.ts`), and an unknown path with status 200 and words of its own. LM Studio's app
and llmster, its daemon, answer alike, and neither tells its version over HTTP: only its own SDKs learn it, over a WebSocket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

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
SERVERS = {"lmdeck": "lmdeck engine", "llama.cpp": LLAMA_CPP}
GREETING = "/lmstudio-greeting"
ALIVE = "/health/liveliness"
VERSION_PROBES = {
    LLAMA_CPP: ("/props", "build_info"),
    OLLAMA: ("/api/version", "version"),
    VLLM: ("/version", "version"),
    LITELLM: ("/health/readiness", "litellm_version"),
}
LONGEST_VERSION = 60


class Product(Struct, frozen=True):
    """What answers: its name, None where it is not known yet, and its version where it tells."""

    name: str | None = None
    version: str | None = None


def recognize(api: ApiLevel, body: object, headers: Mapping[str, str], refusals: Sequence[str] = ()) -> Product:
    """Say what answered a model list: by its headers, its API, its models' owner, or how it refused the paths before."""
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
    """Return the product that an answer's headers name."""
    name, _, version = headers.get("server", "").partition("/")
    if name.lower() in SERVERS:
        return Product(SERVERS[name.lower()], _version(version))
    if headers.get("x-litellm-version"):
        return Product(LITELLM, _version(headers["x-litellm-version"]))
    return None


class Peer:
    """What the answers of one server have told of it so far: `product` is None until one of them names it."""

    def __init__(self) -> None:
        self.product: str | None = None

    def read_headers(self, headers: Mapping[str, str]) -> None:
        """Note what an answer's headers tell."""
        named = _named_by(headers)
        if named is not None:
            self.product = named.name


def product_from_error(*refusals: str) -> str | None:
    """Name the product by the words of its refusals."""
    words = ("unexpected endpoint or method", "lm studio api token")
    return LM_STUDIO if any(word in refusal.lower() for refusal in refusals for word in words) else None


def probe_paths(product: Product) -> tuple[str, ...]:
    """Return the paths to ask for what is not known yet: none, one, or a few."""
    if product.name is None:
        return (VERSION_PROBES[OLLAMA][0], GREETING, ALIVE)
    if product.version is None and product.name in VERSION_PROBES:
        return (VERSION_PROBES[product.name][0],)
    return ()


def refine(path: str, body: object, product: Product) -> Product:
    """Add what a question's answer tells; what is no answer of that product tells nothing."""
    if path == ALIVE:
        return Product(LITELLM) if body == "I'm alive!" else product
    if not isinstance(body, Mapping):
        return product
    if path == GREETING:
        return Product(LM_STUDIO) if body.get("lmstudio") is True else product
    name, field = next((name, field) for name, (asked, field) in VERSION_PROBES.items() if asked == path)
    version = _version(body.get(field))
    return product if version is None else Product(product.name or name, version)


def _version(said: object) -> str | None:
    """Take a version that could be one: a short printable word."""
    text = said.strip() if isinstance(said, str) else ""
    return text if text and len(text) <= LONGEST_VERSION and text.isprintable() else None
