"""Recognise secrets, and remove them from text that people see: messages, logs, reports. *Pure*.

One list of patterns for all outputs, so that none is stricter than another. The vendor writes part
of the text, so each pattern begins with something literal and runs in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

from satfs.humanize import CONTROLS

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

#: Longest text of the vendor that is quoted in a message.
MAX_QUOTE_CHARACTERS: Final = 300
#: Characters at the beginning of a text in which a quote is looked for.
_LOOKED_AT_CHARACTERS: Final = 4096
#: Texts shorter than this are not searched for as secrets: they would match by chance.
_MIN_SECRET: Final = 4
#: Texts longer than this are taken for secrets without a search, which would keep other threads
#: waiting: 50 ms for as many characters. No field of the API holds a tenth of it.
MAX_SEARCHED_CHARACTERS: Final = 256 * 1024

#: Marks of a signature or a credential: presigned URLs of S3 (both versions), CloudFront, Google
#: and Azure, and tokens in URLs or headers.
_MARKS: Final = re.compile(
    r"x-amz-|x-goog-|awsaccesskeyid|signature=|[?&]sig=|key-pair-id=|policy=|"
    r"[?&;#](?:access_)?token=|security-?token|api_?key=|bearer\s+\S|"
    # Our own variable's name is no secret, as long as no value comes with it.
    r"(?<!satfs_)client_?secret|client_?secret[=:]|"
    r"(?<![\w-])eyj[\w-]{10,}\.[\w-]+\.",
    re.IGNORECASE,
)
_ANY_USER_INFO: Final = re.compile(r"://[^/?#\s]*@")
_CONTROL: Final = re.compile(f"[{CONTROLS}\ufeff]+")
#: Names of fields that hold a secret, without case, `_` and `-`.
_SECRET_KEYS: Final = frozenset(
    {"token", "accesstoken", "idtoken", "refreshtoken", "sessiontoken", "securitytoken"}
    | {"authorization", "authorizationtoken", "secret", "clientsecret", "secretkey"}
    | {"secretaccesskey", "password", "signature", "apikey"}
)
#: Of these, everything that is secret to us shows at least one, in lower case: parts of the marks
#: and of the keys, `@` of a user name, and what can hide the others (`%40`, `\\u0040`).
_TRACES: Final = (
    *(b"x-amz-", b"x-goog-", b"awsaccesskeyid", b"signature", b"sig=", b"key-pair-id", b"policy="),
    *(b"token", b"secret", b"password", b"authorization", b"bearer", b"eyj", b"@", b"%", b"\\"),
    *(b"api_key", b"api-key", b"apikey"),
)
_LINK: Final = re.compile(r"\s*(?:(?:https?|s3|gs|ftp|file)://|data:\w+/)", re.IGNORECASE)


def redact(text: str, mark: str = "…") -> str:
    """Return *text* with *mark* for each secret. Redacting twice changes nothing more."""
    text = _QUERY.sub(rf"\1?{mark}", text)
    text = _USER_INFO.sub(f"://{mark}@", text)
    text = _ASSIGNED.sub(rf"\1={mark}", text)
    text = _HEADER.sub(rf"\1 {mark}", text)
    return _JWT.sub(mark, text)


def may_hold_secrets(document: bytes) -> bool:
    """Return whether anything in a JSON document could be a secret to the functions below.

    Looks at the document as a whole, a hundred times as fast as at each of its values; errs on the
    side of True.
    """
    if len(document) > MAX_SEARCHED_CHARACTERS:
        return True  # one of its texts may be too long to be searched
    lower = document.lower()
    return any(trace in lower for trace in _TRACES)


def is_secret_like(value: Any) -> bool:
    """Return whether *value* is text that looks like a signed URL, a token or a password.

    So does a text that is too long to be searched.
    """
    if not isinstance(value, str) or len(value) < _MIN_SECRET:
        return False
    if len(value) > MAX_SEARCHED_CHARACTERS:
        return True
    plain = unquote(value) if "%" in value else value
    return bool(_MARKS.search(plain) or ("@" in plain and _ANY_USER_INFO.search(plain)))


def is_secret_key(key: str) -> bool:
    """Return whether a field of this name holds a secret, of any form."""
    return key.lower().replace("-", "").replace("_", "") in _SECRET_KEYS


def is_link(value: Any) -> bool:
    """Return whether *value* is an address of the web or of an object store, and nothing else."""
    return isinstance(value, str) and ":" in value and bool(_LINK.match(value))


def for_people(text: str, secrets: Iterable[str] = ()) -> str:
    """Return *text* fit for a message or a log: one line, short, and without secrets.

    *secrets* are taken out wherever they stand; so are queries of URLs and what looks like a token.
    """
    is_cut = len(text) > _LOOKED_AT_CHARACTERS
    if is_cut:
        # The last word may be half a secret, which nothing below would recognise.
        text = text[:_LOOKED_AT_CHARACTERS].rpartition(" ")[0]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, "***")
    words = _CONTROL.sub(" ", redact(text, "***")).split()
    text = " ".join("***" if is_secret_like(word) else word for word in words)
    if is_cut or len(text) > MAX_QUOTE_CHARACTERS:
        text = text[: MAX_QUOTE_CHARACTERS - 1] + "…"
    return text
