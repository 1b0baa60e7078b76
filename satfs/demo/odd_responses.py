"""All bytes of one response, written as few servers write them. *Pure*."""

from __future__ import annotations

from typing import Final

from satfs.demo.responses import Response

#: Bytes that are missing at the end of a body whose length nothing states.
_MISSING_BYTES: Final = 1000


def oddly_written(response: Response, body: bytes, shape: str) -> bytes:
    """Return all bytes of a response as the fault "odd-response" writes them."""
    headers = dict(response.headers)
    status_line, before = f"HTTP/1.1 {response.status} Odd", b""
    match shape:
        case "interim":
            before = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        case "continue":
            before = b"HTTP/1.1 100 Continue\r\n\r\n"
        case "twice":
            headers["Content-length"] = str(len(body))
        case "two-lengths":
            headers["Content-length"] = str(len(body) + 1)
        case "http-1.0":
            status_line = f"HTTP/1.0 {response.status} Odd"
        case "no-reason":
            status_line = f"HTTP/1.1 {response.status}"
        case "close":
            headers["Connection"] = "close"
        case "folded":
            headers["X-Folded"] = "one\r\n two\r\n\tthree"
        case "capitals":
            headers = {name.swapcase(): value for name, value in headers.items()}
        case "long-head":
            headers["X-Long"] = "x" * 60_000
        case "several-parts":
            part = f"--part\r\nContent-Range: {headers.pop('Content-Range', '')}\r\n\r\n"
            body = part.encode() + body + b"\r\n--part--\r\n"
            headers["Content-Type"] = "multipart/byteranges; boundary=part"
    match shape:
        case "trailer":
            headers["Transfer-Encoding"] = "chunked"
            body = b"%x\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)
        case "until-close":
            pass
        case "short-until-close":
            body = body[:-_MISSING_BYTES]
        case "listed-length":
            headers["Content-Length"] = f"{len(body)}, {len(body)}"
        case _:
            headers["Content-Length"] = str(len(body))
    line_end = "\n" if shape == "bare-lf" else "\r\n"
    lines = [status_line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return before + line_end.join(lines).encode() + body
