"""What nodes and clients prove with who they are: certificates of one CA, each bound to a node's name.

No gRPC, so that a placement can be checked without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import ssl
import urllib.parse

from resilinet_jax.errors import UserError

CA, CLIENT = "ca", "client"  # names of files that no node has; `None` stands for the client among nodes
DOMAIN = "resilinet.internal"  # a name that is never looked up


def identity(node: str | None) -> str:
    """The one DNS name in the certificate of a node, or of the client: of any text, and of no address."""
    return f"{CLIENT}.{DOMAIN}" if node is None else f"{hashlib.sha224(node.encode()).hexdigest()}.node.{DOMAIN}"


def called(node: str | None) -> str:
    """How messages call a node, or the client."""
    return "the client" if node is None else f"node {node!r}"


def certificate_files(node: str | None) -> tuple[str, str]:
    """Names of the files with the certificate and the key of a node, or of the client."""
    stem = CLIENT if node is None else urllib.parse.quote(node, safe=" ")
    if node is not None and stem.lower() in (CA, CLIENT):
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    return f"{stem}.pem", f"{stem}.key"


@dataclasses.dataclass(frozen=True)
class Certificates:
    """What one node, or the client, proves itself with, and whom it trusts; all as PEM.

    Attributes:
      ca: certificate of who has certified all of them.
      certificate: its own.
      key: of that, which nobody else has.
    """

    ca: bytes
    certificate: bytes
    key: bytes = dataclasses.field(repr=False)

    @classmethod
    def read(cls, folder: pathlib.Path, node: str | None) -> Certificates:
        """Reads three files, and checks that they belong together and to this node, today.

        Args:
          folder: that holds them, and perhaps others'.
          node: its name; None for the client.

        Raises:
          UserError: naming the file and what is wrong with it.
        """
        ca, certificate, key = paths = [folder / name for name in (f"{CA}.pem", *certificate_files(node))]
        try:
            read = cls(*(path.read_bytes() for path in paths))
        except OSError as error:
            raise UserError(
                f"{error.filename}: {error.strerror}; {called(node)} needs {ca.name}, {certificate.name} and "
                f"{key.name}, which resilinet-jax-certificates makes"
            ) from None
        why = _doubt(ca, certificate, key, identity(node))
        if why is not None:
            raise UserError(
                f"{certificate}: no certificate of {called(node)} ({why}); make it with resilinet-jax-certificates; "
                f"{ca.name} and {key.name} must be of the same folder"
            )
        return read


def _doubt(ca: pathlib.Path, certificate: pathlib.Path, key: pathlib.Path, name: str) -> str | None:
    """Why somebody who trusts the CA would not take these for the proof of this identity; None if they would."""
    judge, shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    judge.verify_mode = ssl.CERT_REQUIRED
    shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
    to_judge, to_shown = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        judge.load_verify_locations(ca)
        for context in (judge, shown):
            context.load_cert_chain(certificate, key, password="")
        ends = [shown.wrap_bio(to_shown, to_judge), judge.wrap_bio(to_judge, to_shown, server_side=True)]
        for end in 2 * ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
        proven = ends[1].getpeercert() or {}
    except (ssl.SSLError, ValueError) as error:
        return str(getattr(error, "verify_message", None) or getattr(error, "reason", None) or "damaged").lower()
    return None if proven.get("subjectAltName") == (("DNS", name),) else "it is another's"
