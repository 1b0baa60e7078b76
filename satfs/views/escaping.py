"""Vendor text that stays text: in XML, and in a script. *Pure*."""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import escape

from satfs.json_bytes import json_bytes
from satfs.model import Json

#: Characters that XML 1.0 §2.2 cannot hold: controls, surrogates, and two non-characters.
_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def xml_text(text: str) -> str:
    """Return *text* as XML character data, fit for an attribute in double quotes, too.

    A character that XML cannot hold is shown as U+FFFD.
    """
    return escape(
        _NOT_XML.sub("\ufffd", text), {'"': "&quot;", "\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}
    )


def script_of(variable: str, value: Json) -> bytes:
    """Return a script that sets a global *variable*; text in *value* ends no script.

    `<` is in strings alone, where an escape means the same; `json_bytes` escapes the line
    separators that older browsers end a line at.
    """
    text = json_bytes(value).replace(b"<", b"\\u003c").rstrip()
    return f"window.{variable} = ".encode() + text + b";\n"
