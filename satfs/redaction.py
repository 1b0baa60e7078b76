"""Remove secrets from text that people will see: in messages, in logs, in reports. *Pure*.

One list of patterns for all of them, so that no output is stricter than another. Each pattern
begins with something literal and runs in linear time, since the vendor writes part of the text.
"""

from __future__ import annotations

import re
from typing import Final

#: Query and fragment of a URL: a presigned URL carries its signature there, OAuth a token.
_QUERY: Final = re.compile(
    r"""(\b(?:https?|s3|gs)://[^\s?#'"\\<>]*)[?#][^\s'"\\<>]*""", re.IGNORECASE
)
#: User name and password of a URL (RFC 3986, section 3.2.1).
_USER_INFO: Final = re.compile(r"""://[^/?#\s'"\\<>]*@""")
#: Parameters and variables that hold a secret, with their value: signatures of S3, CloudFront,
#: Google and Azure, tokens, passwords.
_ASSIGNED: Final = re.compile(
    r"""(?<![A-Za-z0-9])(x-(?:amz|goog)-[a-z-]+|awsaccesskeyid|signature|sig|key-pair-id"""
    r"""|(?:access_?|id_?|refresh_?|session_?|security[-_]?)?token|client_?secret"""
    r"""|secret_?(?:access_?)?key|password|api_?key)=[^\s&'"\\<>]+""",
    re.IGNORECASE,
)
#: The value of an Authorization header.
_HEADER: Final = re.compile(r"""\b(bearer|key,secret)\s+[^\s'"\\;]+""", re.IGNORECASE)
#: A JSON web token (RFC 7519): its header is a JSON object, so it begins with `eyJ`.
_JWT: Final = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?")


def redact(text: str, mark: str = "…") -> str:
    """Return *text* with *mark* for each secret. Redacting twice changes nothing more."""
    text = _QUERY.sub(rf"\1?{mark}", text)
    text = _USER_INFO.sub(f"://{mark}@", text)
    text = _ASSIGNED.sub(rf"\1={mark}", text)
    text = _HEADER.sub(rf"\1 {mark}", text)
    return _JWT.sub(mark, text)
