"""Pictures, documents and sound in a conversation.

A message's content may be a list of parts in OpenAI's shape:

    {"type": "text", "text": "..."}
    {"type": "image_url", "image_url": {"url": "https://..." or "data:image/png;base64,..."}}
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,...", "filename": "..."}}
    {"type": "file", "file": {"file_id": "..."}}
    {"type": "input_audio", "input_audio": {"data": "<base64>", "format": "wav"}}

Beside an address or a `file_id` there may be a `media_type`, which OpenAI's shape does not have: it
is for the providers that must be told it, and nobody else gets it.

`image_part` and `file_part` write such parts; `read_media` reads them for a provider that has words
of its own for them.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from .errors import ConfigurationError

__all__ = ["Media", "file_part", "image_part", "read_media", "without_media_type"]

#: What the first bytes of a file tell of its type; WebP's are told apart in `_sniff`.
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"%PDF-": "application/pdf",
}
#: What the end of a file's name tells of its type.
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "xml": "text/xml",
    "json": "application/json",
    "mp3": "audio/mp3",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "webm": "video/webm",
}
#: What may stand in a part's inner object, by the part's type.
_FIELDS = {
    "image_url": frozenset({"url", "detail", "media_type"}),
    "file": frozenset({"file_data", "file_id", "filename", "media_type"}),
    "input_audio": frozenset({"data", "format"}),
}
_ENDINGS = {type_: ending for ending, type_ in reversed(_TYPES.items())}
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<options>(?:;[^;,]*)*),", re.IGNORECASE)


class Media(Struct, frozen=True):
    """What a part holds that is no text. One of `data`, `url` and `file_id` is set.

    Attributes:
        kind: The part's own word: `image_url`, `file` or `input_audio`.
        media_type: Such as `image/png`; `None` where only the provider can know it.
        data: The content, in base64.
        url: Where it is.
        file_id: The provider's identifier of an uploaded file.
        filename: Its name.
        beside: What else stands in the part, such as a `cache_control`.
    """

    kind: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    filename: str | None = None
    beside: dict[str, Any] = {}

    def decoded(self) -> bytes:
        """Return the content as bytes."""
        return base64.b64decode(self.data or "")


def image_part(source: str | bytes, media_type: str | None = None) -> dict[str, Any]:
    """Make the part of a message that shows the model a picture.

    Args:
        source: The picture's bytes, its web address, or a `data:` URL.
        media_type: What kind of picture it is. The bytes of PNG, JPEG, GIF and WebP tell it
            themselves; of an address only some providers want to know it.

    Raises:
        ConfigurationError: It is none of these, or the media type has to be told.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        url = _data_url(data, media_type or _sniff(data), "image_part")
        told: dict[str, str] = {}
    else:
        url = _url(source, "image_part")
        _check_data("image_url", url)
        told = _told_type(url, media_type)
    if _is_data(url) and url[:11].lower() != "data:image/":
        raise ConfigurationError("image_part takes pictures; use file_part for anything else")
    return {"type": "image_url", "image_url": {"url": url, **told}}


def file_part(
    source: str | bytes, media_type: str | None = None, filename: str | None = None
) -> dict[str, Any]:
    """Make the part of a message that gives the model a document, or any other file.

    Args:
        source: The file's bytes, its web address, or a `data:` URL.
        media_type: What it is. The bytes of PDF and of the pictures of `image_part` tell it
            themselves, for others a well-known ending of `filename` is enough; of an address only
            some providers want to know it.
        filename: The file's name, which OpenAI demands; else `file` with an ending.

    Raises:
        ConfigurationError: It is none of these, or the media type has to be told.
    """
    if filename is not None and not isinstance(filename, str):
        raise ConfigurationError(f"a file's filename must be a str, not {type(filename).__name__}")
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        media_type = media_type or _sniff(data) or type_of_name(filename or "")
        file = {"file_data": _data_url(data, media_type, "file_part")}
        filename = filename or f"file.{_ENDINGS.get((media_type or '').lower(), 'bin')}"
    else:
        url = _url(source, "file_part")
        _check_data("file", url)
        file = {"file_data": url, **_told_type(url, media_type)}
    if filename:
        file["filename"] = filename
    return {"type": "file", "file": file}


def read_media(part: Mapping[str, Any], also: Collection[str] = ()) -> Media | None:
    """Read a part; `None` where it is text, or in some provider's own words.

    Args:
        part: The part.
        also: What else may stand in its inner object, beside the fields that everybody understands;
            the caller sees to it.

    Raises:
        ConfigurationError: The part has not the shape that its type demands.
    """
    kind = part.get("type")
    if kind not in _FIELDS:
        return None
    inner = _inner(part, kind, also)
    told = inner.get("media_type")
    if told is not None:
        _check_type(told)
    beside = {name: value for name, value in part.items() if name not in ("type", kind)}
    if kind == "input_audio":
        data, format_ = inner.get("data"), inner.get("format")
        if not isinstance(format_, str) or not _MEDIA_TYPE.fullmatch(f"audio/{format_}"):
            raise ConfigurationError("an input_audio part needs a format, such as 'wav' or 'mp3'")
        return Media(kind, f"audio/{format_}", _checked_base64(data, kind), beside=beside)
    if kind == "image_url":
        detail = inner.get("detail")
        if detail not in (None, "auto") and "detail" not in also:
            raise ConfigurationError(f"only OpenAI's format takes a picture's detail: {detail!r}")
        return _read_source(kind, inner.get("url"), None, told, beside)
    return _read_file(inner, told, beside)


def _inner(part: Mapping[str, Any], kind: str, also: Collection[str]) -> Mapping[str, Any]:
    """Return a part's inner object, which holds nothing that nobody would read."""
    inner = part.get(kind)
    if kind == "image_url" and isinstance(inner, str):  # as some servers have it
        inner = {"url": inner}
    if not isinstance(inner, Mapping):
        raise ConfigurationError(f"a part of type {kind!r} must have an object {kind!r}")
    for name, value in inner.items():
        if value is not None and name not in _FIELDS[kind] and name not in also:
            raise ConfigurationError(f"a part of type {kind!r} cannot hold {name!r} here")
    return inner


def _read_file(inner: Mapping[str, Any], told: str | None, beside: dict[str, Any]) -> Media:
    filename = inner.get("filename")
    if filename is not None and not isinstance(filename, str):
        raise ConfigurationError("a file's filename must be a str")
    file_id = inner.get("file_id")
    if file_id is not None:
        if not isinstance(file_id, str) or not file_id or inner.get("file_data") is not None:
            raise ConfigurationError("a file part holds either file_data or a file_id, a text")
        return Media("file", told, file_id=file_id, filename=filename, beside=beside)
    return _read_source("file", inner.get("file_data"), filename, told, beside)


def without_media_type(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part in OpenAI's own shape, which has no media type beside an address."""
    kind = part.get("type")
    inner = part.get(kind) if isinstance(kind, str) and kind in _FIELDS else None
    if not isinstance(kind, str) or not isinstance(inner, dict) or "media_type" not in inner:
        return part
    return {**part, kind: {key: value for key, value in inner.items() if key != "media_type"}}


def type_of_name(name: str) -> str | None:
    """Return the media type that the end of a file's name, or of a URL's path, tells."""
    path = urlsplit(name).path if "://" in name else name
    return _TYPES.get(path.rpartition(".")[2].lower())


def _told_type(source: str, media_type: Any) -> dict[str, str]:
    """Return what a part says of the type of what is elsewhere; a `data:` URL says it itself."""
    if media_type is None:
        return {}
    _check_type(media_type)
    data = _DATA_URL.match(source)
    if data is not None and data["type"].lower() != media_type.lower():
        raise ConfigurationError(f"this data: URL holds {data['type']!r}, not {media_type!r}")
    return {} if data is not None else {"media_type": media_type}


def _check_type(media_type: Any) -> None:
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        raise ConfigurationError(f"not a media type: {media_type!r}")


def _read_source(
    kind: str, source: Any, filename: str | None, told: str | None, beside: dict[str, Any]
) -> Media:
    what = "image_url.url" if kind == "image_url" else "file.file_data"
    if not isinstance(source, str) or not source:
        raise ConfigurationError(f"a part of type {kind!r} needs {what}, a URL")
    if not _is_data(source):
        url = _url(source, what)
        name = filename if filename and type_of_name(filename) else url
        type_ = told or type_of_name(name)
        return Media(kind, type_, url=url, filename=filename, beside=beside)
    head = _DATA_URL.match(source)
    options = head["options"].lower().split(";") if head else []
    if head is None or "base64" not in options:
        raise ConfigurationError(f"{what} must look like data:image/png;base64,...")
    if not _MEDIA_TYPE.fullmatch(head["type"]):
        raise ConfigurationError(f"{what} has no media type: write data:image/png;base64,...")
    data = _checked_base64(source[head.end() :], what)
    return Media(kind, head["type"].lower(), data, filename=filename, beside=beside)


def _checked_base64(data: Any, what: str) -> str:
    if not isinstance(data, str) or not data:
        raise ConfigurationError(f"{what} holds no base64 text")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"{what} is not base64: {error}") from None
    return data


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((type_ for magic, type_ in _MAGIC.items() if data.startswith(magic)), None)


def _data_url(data: bytes, media_type: str | None, what: str) -> str:
    if media_type is None:
        raise ConfigurationError(f"{what} cannot tell what these bytes are: pass media_type=...")
    _check_type(media_type)
    if not data:
        raise ConfigurationError(f"{what} was given no bytes")
    return f"data:{media_type.lower()};base64,{base64.b64encode(data).decode()}"


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def _check_data(kind: str, url: str) -> None:
    """Refuse a `data:` URL that no provider could read; what is elsewhere nobody knows."""
    if _is_data(url):
        _read_source(kind, url, None, None, {})


def _url(source: Any, what: str) -> str:
    if not isinstance(source, str):
        raise ConfigurationError(f"{what} needs a URL or bytes, not {type(source).__name__}")
    if not re.match(r"(https?|gs)://\S+\Z|data:", source, re.IGNORECASE):
        raise ConfigurationError(
            f"{what} is no URL: {source[:80]!r}; for a file of your own pass its bytes, "
            "such as Path(...).read_bytes()"
        )
    return source
