"""Hints about names of models, and about loading them."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, in_order
from lmdeck._responses.error_expressions import DAMAGED_FILE, GPU_FAILED, NOT_USABLE, OUT_OF_MEMORY, TIMED_OUT
from lmdeck._responses.hints.server import GPU
from lmdeck.errors import ModelLoadError

SEVERAL_LOADED = (
    AnyPattern(r"\bmultiple models are loaded"),
    "Name the model in the request, with `model=` of the client or lm.chat(): several are loaded.",
)
OTHER_DEVICE = (
    AnyPattern(r"\bLM Link\b", r"\bdevice\b.{0,60}\b(not connected|offline|unreachable)"),
    "Connect the device to LM Link, or choose a model on this device: `lmdeck models` lists them.",
)
PROVIDER = (
    AnyPattern(r"\bprovider not provided\b"),
    "Name the model as the proxy lists it (`lmdeck models`): LiteLLM needs a provider before other names.",
)
VERSION = (
    AnyPattern(
        r"\b(no longer compatible|not compatible|incompatible) with (your|this|the) version",
        r"\b(requires? (an? )?(newer|later|more recent)|incompatible) version\b",
        r"\brequires?\b[^\n]{0,40}\d[\d.]* or (newer|later|above|higher)\b",
    ),
    "Update the server, or download the model again: the two do not fit each other.",
)
HUGGING_FACE = (
    AnyPattern(r"\bhugging ?face\b", r"\bhf-proxy\b", r"\bhf\.co\b"),
    "Hugging Face, or LM Studio's proxy to it, refused: check the name, accept the license there, or try again later.",
)
ALREADY_LOADED = (
    AnyPattern(r"\b(model|instance|identifier)\b.{0,120}\balready (exists|loaded|in use|running|taken)\b"),
    "The model is loaded: use it (`lmdeck models` lists its instances), or unload it first.",
)
UNLOAD = (
    AnyPattern(r"\bunload\b", r"\bmodels?\b.{0,40}\bpinned\b"),
    "Unload a model that is not needed, for example with `lmdeck models unload`, then ask again.",
)
# Why a model could not be loaded.
LOAD_FAILED = (
    (
        AnyPattern(OUT_OF_MEMORY, r"\ballocate\b"),
        str(ModelLoadError.default_hint),
    ),
    (
        AnyPattern(r"\boperation cancell?ed\b", r"\bload(ing)?\b.{0,60}\b(cancell?ed|aborted|interrupted|superseded)"),
        "Loading was cancelled, in the server's window or by another request: load the model first, then ask again.",
    ),
    (
        AnyPattern(TIMED_OUT),
        "Loading took longer than the server allows: load the model first, from a faster disk, or choose a smaller one.",
    ),
    (
        AnyPattern(*GPU_FAILED),
        GPU,
    ),
    (
        AnyPattern(r"before becoming healthy", r"snapshot of system resources"),
        "The engine could not be started: free memory, choose a smaller model or context length, or update its runtime.",
    ),
    (
        AnyPattern(
            r"unknown model architecture", r"unsupported model (type|architecture)", r"model type \S+ not supported"
        ),
        "The engine does not know this model's architecture: update its runtime, or choose another model.",
    ),
    (
        AnyPattern(*DAMAGED_FILE),
        "The file is damaged or newer than the engine: download it again, update the runtime, or choose another model.",
    ),
    (
        AnyPattern(
            in_order("no|missing", "runtime|engine|backend", "found"),
            in_order("runtime|engine|backend", NOT_USABLE, within=20),
            r"\bno module named\b|\b(ModuleNotFound|Import)Error\b|\bshared (object|library)\b|\.(dll|so|dylib)\b",
        ),
        "Install or update the runtime of the model's format in the server's settings (LM Studio: `lms runtime get`).",
    ),
    (
        AnyPattern(r"\w{4}.{12}"),
        "Look at the server's log; free memory, choose a smaller model or context length, or update the engine's runtime.",
    ),
)
