"""What a member says to the others by way of its hub: signed by the key of its certificate, so that the hub cannot
say it in its place.
"""

from __future__ import annotations

from datetime import datetime

from hierfl.errors import LinkError
from hierfl.link.denied import DenyList
from hierfl.link.identity import Identity, uris_in
from hierfl.link.kit import Kit

__all__ = ["MOST_BYTES", "check_signed", "signed"]

MOST_BYTES = 16384
"""Of a certificate, or a signature."""


def signed(kit: Kit, statement: bytes) -> tuple[bytes, bytes]:
    """Sign a statement as a kit's node; give its certificate (DER), and the signature. Errors: LinkError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    key_pem, certificate, _ = kit.credentials()
    try:
        key = load_pem_private_key(key_pem, None)
        found = x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError) as error:
        raise LinkError(f"{kit.folder} has no key or certificate that can be read: {error}") from error
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != found.public_key():
        raise LinkError(f"the certificate in {kit.folder} is not of the key there")
    return found.public_bytes(Encoding.DER), key.sign(statement, ECDSA(SHA256()))


def check_signed(
    kit: Kit, who: Identity, certificate: bytes, signature: bytes, statement: bytes, now: datetime
) -> None:
    """Errors: LinkError unless a party has signed this, with a certificate of the kit's authority that holds now."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    if max(len(certificate), len(signature)) > MOST_BYTES:
        raise LinkError(f"a certificate or a signature of {who.path} of more than {MOST_BYTES} bytes")
    try:
        authority = x509.load_pem_x509_certificate(kit.credentials()[2])
        found = x509.load_der_x509_certificate(certificate)
        found.verify_directly_issued_by(authority)
        uris = uris_in(found)
    except (
        *(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm),
        *(x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion),
    ) as error:
        raise LinkError(f"what comes in the name of {who.path} has no certificate of this federation's") from error
    if who.uri not in uris:
        raise LinkError(f"what comes in the name of {who.path} has the certificate of {', '.join(uris) or 'nobody'}")
    if not found.not_valid_before_utc <= now < found.not_valid_after_utc:
        raise LinkError(f"the certificate of {who.path} does not hold now, by this machine's clock")
    if found.serial_number in DenyList(kit.denied):
        raise LinkError(f"the certificate of {who.path} is denied")
    key = found.public_key()
    try:
        if not isinstance(key, EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, statement, ECDSA(SHA256()))
    except InvalidSignature as error:
        said = "has not signed this: it is of another round, model, list of members or key than is known here"
        raise LinkError(f"{who.path} {said}") from error
