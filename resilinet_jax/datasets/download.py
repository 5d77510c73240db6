"""Fetches a published file, whole or not at all, and gives up within seconds where there is no network."""

from __future__ import annotations

import hashlib
import http.client
import pathlib
import urllib.request
import uuid

from resilinet_jax.errors import DataError, first_line

TIMEOUT = 5.0  # seconds without an answer until a download is given up


def download(url: str, sha256: str, target: pathlib.Path, what: str) -> pathlib.Path:
    """Fetches `url` to `target`.

    Args:
      url: where it is published.
      sha256: of the published file.
      target: where it goes.
      what: the data set, as messages call it.

    Raises:
      UserError: if it can't be had, or isn't what was published.
    """
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    remedy = f"fetch it by hand and give its folder as --data_dir: {url}"
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                while block := response.read(1 << 20):
                    digest.update(block)
                    file.write(block)
        if digest.hexdigest() != sha256:
            raise DataError(f"the downloaded {what} archive is not the published one (SHA-256 differs); {remedy}")
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs among the first
        reason = getattr(error, "reason", error)
        why = first_line(reason) if isinstance(reason, Exception) else reason
        raise DataError(f"can't download {what} ({why}); {remedy}") from None
    finally:
        part.unlink(missing_ok=True)
    return target
