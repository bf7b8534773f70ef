"""What gRPC says of a connection that failed, in few words."""

from __future__ import annotations

import re
from typing import Any

import grpc

__all__ = ["SILENCE", "in_words"]

SILENCE = "nothing is heard of it"

_REASONS = {
    "certificate has expired": "it has run out, or a clock is wrong",
    "certificate is not yet valid": "it does not hold yet, or a clock is wrong",
    "unable to get local issuer certificate": "another authority signed it than the one in this kit's ca.pem",
    "unsupported certificate purpose": "it is of a node that serves nobody, or did not when it was made",
}
"""What is said of a certificate, by OpenSSL's own words (X509_verify_cert_error_string)."""

_NOT_BELIEVED = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)")
_OF_ANOTHER = re.compile(r"Hostname Verification Check failed|is not in peer certificate")  # today's gRPC, that of 2024
_LAST = re.compile(r".*last error: \w+: ", re.DOTALL)


def in_words(error: Any) -> str:
    """Put an error of gRPC, or another, in a line."""
    if isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.CANCELLED:
        return SILENCE
    details = error.details() if isinstance(error, grpc.RpcError) and hasattr(error, "details") else str(error)
    if not details:
        return type(error).__name__
    refused = _NOT_BELIEVED.search(details)
    if refused is not None:
        reason = refused[1].strip()
        return f"its certificate is not believed: {_REASONS.get(reason, reason)}"
    if _OF_ANOTHER.search(details) is not None:
        return "its certificate is another node's: is this its address?"
    return str(_LAST.sub("", details).splitlines()[0][:300])
