"""The formats of tokens and private keys, as their issuers document them for scanners."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck._redaction.mapped_text import Span

_WITH_SEPARATORS = (
    "sk-|xox[a-z]-|xoxe\\.xox[bp]-|xapp-|[srp]k_(?:live|test|prod)_|github_pat_|gl(?:pat|dt|ft|rt|rtr|ptt|cbt|imt|agent|soat|oas|ffct)-"
    "|lsv2_[ps][tk]_|dckr_[po]at_|pscale_(?:tkn|pw|oauth)_|nvapi-|PMAK-|NR(?:AK|II|JS|RA|AL)-|HRKU-|tskey-|fo1_|fm[12][ar]?_|GOCSPX-"
    "|hv[bsr]\\.|dt0[cs]01\\.|fig[du]_|figo|fio-u-|tfp_|xkeysib-|xsmtpsib-|sq0[a-z]{3}-|FLW(?:SECK|PUBK)(?:_TEST)?-|CFPAT-|pcsk_|SWMTKN-"
    "|ATATT3|ATCTT3|GR1348941|dnkey-|tk-us-|tgp_v1_|bedrock-api-key-|CCIPAT_|pypi-Ag|pk-lf-|bce-v3/ALTAK-|EAAA"
)
"""Beginnings of tokens whose random part may itself contain separators."""

_IN_ONE_WORD = (
    "lmk_|hf_|gsk_|gh[oprsu]_|npm_|sk_|whsec_|sbp_|sntry[asu]_|glsa_|glc_|rdme_|rubygems_|api_org_|xai-|r8_|tvly-(?:dev-|prod-)?|fw_|csk-"
    "|fc-|jina_|pa-|pplx-|lin_(?:api|oauth)_|do[opr]_v1_|ntn_|shp[a-z]{2,3}_|vercel_|vc[apkri]_|nfp_|bkua_|cio_|pul-|sq[apu]_|sgp_|rnd_|xau_"
    "|ph[cxs]_|pnu_|ico-|aio_|napi_|re_|ctp_|y0_|whk_|API-|EZ[AT]K|sha256~|p8e-|apify_api_|dp\\.[a-z]{2}\\.(?:[\\w-]{1,40}\\.)?|AGE-SECRET-KEY-1"
    "|(?:shippo|duffel|cal|sb|sm)_[a-z]{2,11}_"
)
"""Beginnings of tokens whose random part is one word."""

_IDS = frozenset({
    "agent", "asst", "batch", "blob", "call", "cb", "chat", "chatcmpl", "chunk", "ci", "cmpl", "commit", "completion",
    "container", "conv", "cs", "cu", "cus", "embd", "event", "evt", "fc", "fetch", "file", "fs", "gen", "id", "ig", "img",
    "in", "item", "layer", "mcp", "mcpl", "mcpr", "md5", "message", "model", "msg", "org", "part", "pi", "price", "prod",
    "proj", "rank", "req", "request", "resp", "response", "rs", "run", "seed", "sha1", "sha256", "sha512", "span", "srvtoolu",
    "st", "step", "sub", "thread", "tmp", "tool", "toolu", "trace", "tree", "ts", "txn", "user", "vs", "ws",
})  # fmt: skip
"""Prefixes of identifiers, which are not secrets."""

_TOKENS = (
    rf"(?:{_WITH_SEPARATORS})(?=[a-z_-]{{0,80}}[0-9A-Z])[\w-]{{16,}}(?:[.:|=~+/][\w-]{{4,}})*",
    rf"(?:{_IN_ONE_WORD})(?=[a-z]{{0,80}}[0-9A-Z])[A-Za-z0-9]{{16,}}(?:[-_+/=][A-Za-z0-9]{{8,}})*",
    r"(?:secret|live|test|key|token)_(?=[A-Za-z]{0,80}\d)[A-Za-z0-9]{24,}",
    r"(?:sdk|mob|api|access-[a-z]+|pat-[a-z]{2}\d)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    r"v1\.0-[0-9a-f]{24}-[0-9a-f]{100,}",  # Cloudflare
    r"sk-lm-\w{4,}:[\w-]{4,}",  # LM Studio
    r"(?:AIza|ya29\.|1//0|AQVN|EAA[A-Z]|AKCp|cmVmd|ABSK|ATBB|LTAI|AKLT|AKID|4b1d|ops_eyJ)[\w-]{16,}(?:[.+/=][\w-]*)*",
    r"(?:AKIA|ASIA|ABIA|ACCA|AGPA|AROA|AIDA|ANPA|ANVA|AIPA)[0-9A-Z]{16}(?![A-Za-z0-9])",
    r"(?:SK|AC|key-|dapi)[0-9a-f]{32}(?![A-Za-z0-9])",  # Twilio, Mailgun, Databricks
    r"SG\.[\w-]{16,}\.[\w-]{16,}",
    r"(?:bot)?\d{8,16}:[\w-]{35}(?![\w-])",  # Telegram
    r"\d{15,16}\|[\w-]{27,40}",  # Facebook
    r"[12]/\d{10,}(?:/\d+)?:[0-9a-f]{32}",  # Asana
    r"[\w~.]{3}\dQ~[\w~.-]{31,34}",  # Azure
    r"[0-9a-f]{32}(?:-us\d{1,2}|\.[A-Za-z0-9]{16})(?![A-Za-z0-9])",  # Mailchimp, Zhipu
    r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,}",  # Discord
    r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,}",  # Terraform
    r"[ps]at\.?[\w-]{14,22}\.[A-Za-z0-9]{24,}(?:\.[A-Za-z0-9]{20})?",  # Airtable, Harness
    r"oy2[a-z0-9]{43}(?![A-Za-z0-9])",  # NuGet
    r"A3-[A-Z0-9]{6}(?:-[A-Z0-9]{5,11}){3,5}",  # 1Password
    r"[sbr]\.[A-Za-z0-9]{24}(?![A-Za-z0-9])",  # Vault
    r"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",  # MaxMind
    r"sl\.[\w-]{100,}|AAAA[\w-]{7}:[\w-]{100,}",  # Dropbox, Firebase
    r"\$(?:apr1|[1-6]|2[abxy]|y|argon2\w{0,2}|scrypt)\$(?:[\w=,]{1,40}\$)?[\w./$+-]{20,}",  # hashes of passwords
    r"access_token\$\w+\$\w+\$[0-9a-f]{32}",  # Braintree
    r"(?:[a-z]{2}\.)?eyJ[\w-]{10,}\.[\w-]{10,}(?:\.[\w-]*){0,3}",  # JSON web tokens
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_TOKENS)})")
_RANDOM = re.compile(r"(?<![\w+/=-])(?:([a-z][a-z0-9]{1,15})[-_])?[A-Za-z0-9][\w+/=-]{23,}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9]+")
_OTHER_BEFORE = re.compile(
    r"(?:://\S*|(?:id|hash|digest|checksum|sha\d*|etag|integrity|nonce|cursor|fingerprint|h1)[\"']?[\s:=]{0,3}[\"']?)$",
    re.IGNORECASE,
)
"""The text before a random word that is not a secret: an address, or the name of an identifier or a checksum."""

_PUBLIC = re.compile(
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"  # UUID
    r"|Qm[1-9A-HJ-NP-Za-km-z]{44}"  # IPFS
    r"|AAAA(?:[BC]3NzaC1|E2VjZHNh|Gn[Nn]r)[\w+/=]*"  # public keys of SSH
)
"""Identifiers and public keys that look random."""

RANDOMNESS = 0.45
"""The share of characters after one of another kind: 0.62 in random words, below 0.4 in names of models."""

MIN_RANDOM_CHARS = 36
MIN_RANDOM_PART_CHARS = 24
MIN_PART_OF_RANDOM_CHARS = 12
"""Names of models and files have shorter parts between their separators."""

MAX_RANDOM_CHARS = 200
"""A longer word is data in base64, such as an image."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----([^-]*)|\bPrivate-Lines: \d{1,4}\s([^:]*\n)(?=Private-MAC)"
)


def tokens(text: str) -> Iterator[Span]:
    """Yield the places of a text that have the format of a token or of a private key."""
    for found in _TOKEN.finditer(text):
        yield found.span()
    for found in _RANDOM.finditer(text):
        is_value = found.span() == (0, len(text))  # then its name decides
        if not is_value and found[1] not in _IDS and _is_random(found[0]) and not _is_identifier(text, found.start()):
            yield found.span()
    for found in _PRIVATE_KEY.finditer(text):
        yield found.span(found.lastindex or 0)


def _is_identifier(text: str, begin: int) -> bool:
    return _OTHER_BEFORE.search(text, max(0, begin - MAX_RANDOM_CHARS), begin) is not None


def _is_random(word: str) -> bool:
    """Whether a word mixes small letters, capitals and digits at random, as tokens do."""
    if len(word) > MAX_RANDOM_CHARS or _PUBLIC.fullmatch(word):
        return False
    part = max(_PART.findall(word), key=len)
    if len(part) < MIN_RANDOM_PART_CHARS:
        if len(word) < MIN_RANDOM_CHARS or len(part) < MIN_PART_OF_RANDOM_CHARS:
            return False
        part = "".join(_PART.findall(word))
    kinds = [_kind(char) for char in part]
    return len(set(kinds)) >= 3 and sum(a != b for a, b in pairwise(kinds)) > RANDOMNESS * len(kinds)


def _kind(char: str) -> int:
    return 0 if char.isdigit() else 1 if char.isupper() else 2
