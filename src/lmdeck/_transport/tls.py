"""TLS for servers behind an HTTPS proxy: one context for both transports."""

from __future__ import annotations

import ssl

from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError

TLS_HINT = (
    "Check the certificate: pass its certificate authority as `tls_ca_file`; LM Studio itself speaks plain http://."
)


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the context of the TLS settings; None without them, unless the address is HTTPS.

    The transports for other libraries take the address from each request, so any TLS setting counts.

    Raises:
        ConfigurationError: A certificate or key cannot be read.
    """
    has_settings = settings.tls_ca_file or settings.tls_client_cert or not settings.tls_verify
    if not has_settings and not (settings.base_url or "").lower().startswith("https://"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_client_cert:
            context.load_cert_chain(settings.tls_client_cert, settings.tls_client_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"A TLS file cannot be read: {error}.", hint="Check tls_ca_file, tls_client_cert and tls_client_key."
        ) from error
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
