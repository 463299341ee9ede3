"""The token of a server: where it comes from, and whether the server may start without one."""

from __future__ import annotations

import os
from pathlib import Path

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.serving.guard import digest_of, is_loopback

TOKEN_VARIABLE = "GMP_ATL_SERVE_TOKEN"
_FEWEST_CHARACTERS = 16


def token_digest(token_file: Path | None) -> str | None:
    """sha256 of the token in a file, else in the environment; None if there is none.

    Raises:
        ConfigError: the file cannot be read, or the token is too short. No message has the token.
    """
    if token_file is not None:
        origin = str(token_file)
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            reason = getattr(e, "strerror", None) or "it is no text"
            raise ConfigError(f"--token-file {token_file}: cannot be read ({reason})") from None
    else:
        origin = TOKEN_VARIABLE
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    if len(token) < _FEWEST_CHARACTERS or not token.isascii() or any(c.isspace() for c in token):
        raise ConfigError(
            f"{origin}: a token has at least {_FEWEST_CHARACTERS} ASCII characters and no space; make one "
            f"with: openssl rand -hex 32"
        )
    return digest_of(token)


def check_exposure(host: str, token_sha256: str | None) -> None:
    """Raises ConfigError if others could reach the server and it has no token."""
    if token_sha256 is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: other machines could use this server, so it needs a token; give --token-file, "
            f"or {TOKEN_VARIABLE} in the environment; or --host 127.0.0.1"
        )
