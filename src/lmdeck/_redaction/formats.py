"""The formats of tokens and private keys, as the services that issue them document them for scanners."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck._redaction.mapped_text import Span

_BEFORE = r"(?<![A-Za-z0-9])"
_WITH_SEPARATORS = (
    "sk-|xox[a-z]-|xoxe\\.xox[bp]-|xapp-|[srp]k_(?:live|test|prod)_|github_pat_|gl(?:pat|dt|ft|rt|rtr|ptt|cbt|imt|agent|soat|oas|ffct)-"
    "|lsv2_[ps][tk]_|dckr_[po]at_|pscale_(?:tkn|pw|oauth)_|nvapi-|PMAK-|NR(?:AK|II|JS|RA|AL)-|HRKU-|tskey-|fo1_|fm[12][ar]?_|GOCSPX-"
    "|hv[bsr]\\.|dt0[cs]01\\.|fig[du]_|figo|fio-u-|tfp_|xkeysib-|xsmtpsib-|sq0[a-z]{3}-|FLW(?:SECK|PUBK)(?:_TEST)?-|CFPAT-|SWMTKN-"
    "|ATATT3|ATCTT3|GR1348941|dnkey-|tk-us-|tgp_v1_|bedrock-api-key-|CCIPAT_|pypi-Ag|pk-lf-|bce-v3/ALTAK-|EAAA"
)
"""Beginnings of tokens whose random part may itself contain separators."""

_IN_ONE_WORD = (
    "lmk_|hf_|gsk_|gh[oprsu]_|npm_|sk_|whsec_|sbp_|sntry[asu]_|glsa_|glc_|rdme_|rubygems_|api_org_|xai-|r8_|tvly-(?:dev-|prod-)?|fw_|csk-"
    "|fc-|jina_|pa-|pplx-|lin_(?:api|oauth)_|do[opr]_v1_|ntn_|shp[a-z]{2,3}_|vercel_|vc[apkri]_|nfp_|bkua_|cio_|pul-|sq[apu]_|sgp_|rnd_|xau_"
    "|ph[cxs]_|pcsk_|pnu_|ico-|aio_|napi_|re_|ctp_|y0_|whk_|API-|EZ[AT]K|sha256~|p8e-|apify_api_|dp\\.[a-z]{2}\\.|AGE-SECRET-KEY-1"
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
    rf"{_BEFORE}(?:{_WITH_SEPARATORS})(?=[a-z_-]*[0-9A-Z])[\w-]{{16,}}(?:[.:|=~+/][\w-]{{4,}})*",
    rf"{_BEFORE}(?:{_IN_ONE_WORD})(?=[a-z]*[0-9A-Z])[A-Za-z0-9]{{16,}}(?:[-_+/=][A-Za-z0-9]{{8,}})*",
    rf"{_BEFORE}(?:secret|live|test|key|token)_(?=[A-Za-z]*\d)[A-Za-z0-9]{{24,}}",
    rf"{_BEFORE}(?:sdk|mob|api|access-[a-z]+|pat-[a-z]{{2}}\d)-[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}",
    rf"{_BEFORE}v1\.0-[0-9a-f]{{24}}-[0-9a-f]{{100,}}",  # Cloudflare
    rf"{_BEFORE}sk-lm-\w{{4,}}:[\w-]{{4,}}",  # LM Studio
    rf"{_BEFORE}(?:AIza|ya29\.|1//0|AQVN|EAA[A-Z]|AKCp|cmVmd|ABSK|ATBB|LTAI|AKLT|AKID|4b1d|ops_eyJ)[\w-]{{16,}}(?:[.+/=][\w-]*)*",
    rf"{_BEFORE}(?:AKIA|ASIA|ABIA|ACCA|AGPA|AROA|AIDA|ANPA|ANVA|AIPA)[0-9A-Z]{{16}}(?![A-Za-z0-9])",
    rf"{_BEFORE}(?:SK|AC|key-|dapi)[0-9a-f]{{32}}(?![A-Za-z0-9])",  # Twilio, Mailgun, Databricks
    rf"{_BEFORE}SG\.[\w-]{{16,}}\.[\w-]{{16,}}",
    rf"{_BEFORE}\d{{8,16}}:[\w-]{{35}}(?![\w-])",  # Telegram
    rf"{_BEFORE}\d{{15,16}}\|[\w-]{{27,40}}",  # Facebook
    rf"{_BEFORE}[12]/\d{{10,}}(?:/\d+)?:[0-9a-f]{{32}}",  # Asana
    rf"{_BEFORE}[\w~.]{{3}}\dQ~[\w~.-]{{31,34}}",  # Azure
    rf"{_BEFORE}[0-9a-f]{{32}}(?:-us\d{{1,2}}|\.[A-Za-z0-9]{{16}})(?![A-Za-z0-9])",  # Mailchimp, Zhipu
    rf"{_BEFORE}[MNO][\w-]{{23,27}}\.[\w-]{{6}}\.[\w-]{{27,}}",  # Discord
    rf"{_BEFORE}[A-Za-z0-9]{{14}}\.atlasv1\.[\w-]{{40,}}",  # Terraform
    rf"{_BEFORE}[ps]at\.?[\w-]{{14,22}}\.[A-Za-z0-9]{{24,}}(?:\.[A-Za-z0-9]{{20}})?",  # Airtable, Harness
    rf"{_BEFORE}A3-[A-Z0-9]{{6}}(?:-[A-Z0-9]{{5,11}}){{3,5}}",  # 1Password
    rf"{_BEFORE}[sbr]\.[A-Za-z0-9]{{24}}(?![A-Za-z0-9])",  # Vault
    rf"{_BEFORE}[A-Za-z0-9]{{6}}_[A-Za-z0-9]{{29}}_mmk",  # MaxMind
    rf"{_BEFORE}access_token\$\w+\$\w+\$[0-9a-f]{{32}}",  # Braintree
    rf"{_BEFORE}(?:[a-z]{{2}}\.)?eyJ[\w-]{{10,}}(?:\.[\w-]*){{2,4}}",  # JSON web tokens
)
_TOKEN = re.compile("|".join(_TOKENS))
_VENDOR = re.compile(
    rf"{_BEFORE}([a-z][a-z0-9]{{1,15}})(?:[-_][a-z0-9]{{1,12}}){{0,3}}[-_]([A-Za-z0-9]{{24,100}})(?![A-Za-z0-9+/=])"
)
"""Tokens of a service that is not listed, as far as their format is that of the others."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----([^-]*)|\bPrivate-Lines: \d{1,4}\s([^:]*\n)(?=Private-MAC)"
)


def tokens(text: str) -> Iterator[Span]:
    """Yield the places of a text that have the format of a token or of a private key."""
    for found in _TOKEN.finditer(text):
        yield found.span()
    for found in _VENDOR.finditer(text):
        if found[1] not in _IDS and _is_mixed(found[2]):
            yield found.span()
    for found in _PRIVATE_KEY.finditer(text):
        yield found.span(found.lastindex or 0)


def _is_mixed(word: str) -> bool:
    """Whether small and capital letters and digits are mixed as at random."""
    changes = sum(_kind(before) != _kind(after) for before, after in pairwise(word))
    return changes * 3 > len(word) and any(map(str.isupper, word)) and any(map(str.islower, word))


def _kind(char: str) -> int:
    return 0 if char.isdigit() else 1 if char.isupper() else 2
