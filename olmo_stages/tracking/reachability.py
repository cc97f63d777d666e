"""Whether a server answers soon, asked in a way that cannot hang, and whether a key for it exists.

A TCP connection alone does not tell: a firewall, a proxy or a dead process may accept it and say
nothing, and a proxy may be the only way there.
"""

import http
import http.client
import netrc
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

PATIENCE = 2.0
"""Seconds that a server has to answer anything at all."""

_QUESTION = b'{"query": "query { __typename }"}'
_KIND = {"Content-Type": "application/json"}
_MEMORY = 300.0
_failures: dict[str, float] = {}


def answers(url: str, patience: float = PATIENCE) -> bool:
    """Whether a GraphQL server at `url` takes a question within `patience` seconds.

    Refusing it, for want of a key, counts as taking it; an error of the server's own does not.

    A server that did not is not asked again for five minutes, so that a sweep in one process
    waits for it once.

    Returns:
        True also where only this Python distrusts the certificate, since others may trust it.
    """
    if time.monotonic() - _failures.get(url, -_MEMORY) < _MEMORY:
        return False
    said: list[bool] = []
    # A thread, because looking up a name has no time limit of its own.
    thread = threading.Thread(target=lambda: said.append(_asks(url, patience)), daemon=True)
    thread.start()
    thread.join(patience)
    if said == [True]:
        return True
    remember_failure(url)
    return False


def remember_failure(url: str) -> None:
    """Count the server as silent for five minutes."""
    _failures[url] = time.monotonic()


def question_address(base_url: str) -> str:
    """Return where a W&B server takes questions."""
    return f"{base_url.rstrip('/')}/graphql"


def has_key(settings: Any) -> bool:  # noqa: ANN401  (wandb is imported late)
    """Return whether W&B's settings, or the user's netrc file, hold what logs in."""
    given = settings.api_key or settings.identity_token_file
    return bool(given) or netrc_has(settings.base_url)


def netrc_has(url: str) -> bool:
    """Return whether the user's netrc file holds a password for the host of `url`."""
    try:
        entry = netrc.netrc(_netrc_path()).authenticators(urlsplit(url).netloc)
    except (OSError, netrc.NetrcParseError):
        return False
    return entry is not None and bool(entry[2])


def _netrc_path() -> Path:
    chosen = os.environ.get("NETRC")
    if chosen:
        return Path(chosen).expanduser()
    usual, windows = Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()
    return windows if windows.exists() and not usual.exists() else usual


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer already."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        del req, fp, code, msg, headers, newurl


def _asks(url: str, patience: float) -> bool:
    opener = urllib.request.build_opener(_NoRedirect)
    request = urllib.request.Request(url, data=_QUESTION, headers=_KIND, method="POST")
    try:
        opener.open(request, timeout=patience).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLCertVerificationError)
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True
