"""`resilinet-jax-certificates ARTEFACT --folder=certs`: makes certificates for an artefact's nodes and for the client.

A CA of one's own certifies them. Its key is needed only here: whoever has it can pass for any node.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from resilinet_jax.deploy.artefact import Artefact
from resilinet_jax.deploy.security import CA, Certificates, called, certificate_files, identity
from resilinet_jax.errors import UserError, error_line
from resilinet_jax.files import write_file, write_whole_folder

DAYS = 365  # that a certificate lasts
CA_LASTS = 10  # times as long
SOON = datetime.timedelta(days=30)  # what ends before is made again
SLOW = datetime.timedelta(days=1)  # by which other machines' clocks may be behind
PRIVATE = 0o600  # the mode of all files


def make_certificates(names: Sequence[str], folder: pathlib.Path, days: int = DAYS) -> list[str]:
    """Makes a CA and a certificate for each node and for the client.

    A new folder appears whole or not at all. In one that this function has made, the CA and all keys stay; certificates
    that are missing, no longer good, or end soon are made, each of which appears whole or not at all.

    Args:
      names: of all nodes.
      folder: that is new or empty, or that this function has made.
      days: that certificates last; the CA lasts ten times as long.

    Returns:
      Whose certificates were made, in words.

    Raises:
      UserError: for a folder with something else, or a CA that ends too soon.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise UserError("certificates are made by cryptography; pip install 'resilinet_jax[deploy]'") from None
    folder = folder.resolve()
    is_new = not (folder / f"{CA}.pem").exists()
    if is_new and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} holds something else than certificates; choose another --folder")
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    files: dict[str, bytes] = {}
    if is_new:
        key = _new_key()
        ca = _certificate(key, "resilinet_jax CA", None, now + CA_LASTS * (end - now), key)
        files = {f"{CA}.key": _key_pem(key), f"{CA}.pem": _pem(ca)}
    else:
        ca, key = _read_ca(folder)
        if ca.not_valid_after_utc < end:
            raise UserError(
                f"{folder}: its CA ends on {ca.not_valid_after_utc:%Y-%m-%d}, before certificates of {days} days; give "
                "fewer --days, or choose another --folder and hand out all of it"
            )
    made = []
    for node in (None, *names):
        certificate_file, key_file = certificate_files(node)
        if not is_new and _lasts(folder, node, now + SOON):
            continue
        if (folder / key_file).exists():
            own = _load_key(folder / key_file)
        else:
            own = _new_key()
            files[key_file] = _key_pem(own)  # before its certificate: one without a key would be of no use
        files[certificate_file] = _pem(_certificate(own, node or called(node), node, end, key, ca))
        made.append(called(node))
    if is_new:
        write_whole_folder(folder, files, PRIVATE)
    else:
        for name, content in files.items():
            write_file(folder / name, content, PRIVATE)
    return made


def _certificate(own: Any, title: str, node: str | None, end: datetime.datetime, key: Any, ca: Any = None) -> Any:
    """A certificate of a key, signed by another; of a CA where none is given, which signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    # For people alone; so many bytes fit.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title.encode()[:64].decode(errors="ignore"))])
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
         "decipher_only"), False
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if ca is None else ca.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - SLOW)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca is None, 0 if ca is None else None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=ca is not None, key_cert_sign=ca is None, **usage), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if ca is not None:
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if node is not None else [])
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(identity(node))]), critical=False
        )
    return builder.sign(key, hashes.SHA256())


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(certificate.public_bytes(Encoding.PEM))


def _load_key(path: pathlib.Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged or has a password; remove it, and another is made") from None


def _read_ca(folder: pathlib.Path) -> tuple[Any, Any]:
    """The CA that has certified before, and its key."""
    from cryptography import x509

    path = folder / f"{CA}.key"
    if not path.exists():
        raise UserError(
            f"{path} is missing; run this where it was made, or choose another --folder and hand out all of it"
        )
    try:
        ca, key = x509.load_pem_x509_certificate((folder / f"{CA}.pem").read_bytes()), _load_key(path)
        if ca.public_key() != key.public_key():
            raise ValueError
    except ValueError:
        raise UserError(
            f"{folder}: {CA}.pem and {CA}.key don't belong together; choose another --folder and hand out all of it"
        ) from None
    return ca, key


def _lasts(folder: pathlib.Path, node: str | None, until: datetime.datetime) -> bool:
    """Whether a certificate is there, and good until then."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(Certificates.read(folder, node).certificate)
    except UserError:
        return False
    return bool(certificate.not_valid_after_utc > until)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line on standard error and status 1.

    Args:
      argv: the flags; None for those of this process.
    """
    parser = argparse.ArgumentParser(
        "resilinet-jax-certificates", description="Makes certificates for the nodes of a split network and its client."
    )
    parser.add_argument("artefact", type=pathlib.Path, help="folder that --export has made")
    what = "for the certificates; where there are some, what is missing or ends within 30 days is made"
    parser.add_argument("--folder", type=pathlib.Path, required=True, help=what)
    parser.add_argument("--days", type=int, default=DAYS, help=f"that they last; {DAYS} unless given")
    given = parser.parse_args(argv)
    try:
        if not 1 <= given.days <= 3650:
            raise UserError(f"--days must be in [1, 3650], got {given.days}")
        made = make_certificates(Artefact.open(given.artefact).graph.order, given.folder, given.days)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error_line(error)}")
    print(f"made for: {', '.join(made) or 'nobody; all last for another 30 days'}")
    print(f"Keep {given.folder / CA}.key here. A machine needs {CA}.pem and its own two files, and nobody else's key.")


if __name__ == "__main__":
    main()
