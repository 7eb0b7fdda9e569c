"""Pictures, documents and sound: made into parts, and read from them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llm_sse import file_part, image_part
from llm_sse.errors import ConfigurationError
from llm_sse.media import Media, read_media

PNG = b"\x89PNG\r\n\x1a\nrest"
PDF = b"%PDF-1.7 rest"


def b64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def image(url: Any, **more: Any) -> dict[str, Any]:
    """Return an image part."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**fields: Any) -> dict[str, Any]:
    """Return a file part."""
    return {"type": "file", "file": fields}


class TestImagePart:
    @pytest.mark.parametrize(
        ("data", "media_type"),
        [
            (PNG, "image/png"),
            (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
            (b"GIF87a", "image/gif"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        ],
    )
    def test_bytes_tell_their_type(self, data: bytes, media_type: str) -> None:
        """The first bytes of a picture tell its type."""
        assert image_part(data) == image(f"data:{media_type};base64,{b64(data)}")
        assert image_part(memoryview(data)) == image_part(data)  # type: ignore[arg-type]

    def test_a_type_of_ones_own_wins(self) -> None:
        """What is said to be a type is believed."""
        assert image_part(b"x", "image/heic") == image("data:image/heic;base64,eA==")

    @pytest.mark.parametrize(
        "url", ["https://h/x.png", "HTTP://h/x", "gs://b/x", "data:image/png;base64,eA=="]
    )
    def test_addresses(self, url: str) -> None:
        """An address is taken as it is."""
        assert image_part(url) == image(url)

    def test_a_types_case_does_not_matter(self) -> None:
        """A media type is the same in capital letters."""
        assert image_part(b"x", "IMAGE/PNG") == image("data:image/png;base64,eA==")
        assert file_part(b"x", "TEXT/Plain") == file_part(b"x", "text/plain")

    @pytest.mark.parametrize(
        ("source", "media_type", "said"),
        [
            ("data:", None, "must look like data:image/png;base64"),
            ("data:image/png,x", None, "must look like data:image/png;base64"),
            ("data:image/png;base64,!!!", None, "is not base64"),
            ("data:text/plain;base64,QQ==", None, "use file_part"),
            (b"x", None, "pass media_type"),
            (b"", "image/png", "no bytes"),
            (b"x", "png", "not a media type: 'png'"),
            (PDF, None, "use file_part"),
            ("photo.png", None, "is no URL: 'photo.png'; for a file of your own pass its bytes"),
            ("https://h/a b", None, "is no URL"),
            (5, None, "needs a URL or bytes, not int"),
        ],
        ids=str,
    )
    def test_mistakes(self, source: Any, media_type: Any, said: str) -> None:
        """What is neither a picture nor an address is refused."""
        with pytest.raises(ConfigurationError, match=said):
            image_part(source, media_type)


class TestFilePart:
    @pytest.mark.parametrize(
        ("arguments", "fields"),
        [
            ((PDF,), ("application/pdf", PDF, "file.pdf")),
            ((PDF, None, "a.pdf"), ("application/pdf", PDF, "a.pdf")),
            ((b"x", None, "notes.TXT"), ("text/plain", b"x", "notes.TXT")),
            ((b"x", "text/markdown"), ("text/markdown", b"x", "file.md")),
            ((b"x", "application/x-own"), ("application/x-own", b"x", "file.bin")),
            ((PNG,), ("image/png", PNG, "file.png")),
        ],
        ids=str,
    )
    def test_bytes(self, arguments: tuple[Any, ...], fields: tuple[str, bytes, str]) -> None:
        """Bytes get their type from themselves, the caller or the name, and a name."""
        media_type, data, filename = fields
        url = f"data:{media_type};base64,{b64(data)}"
        assert file_part(*arguments) == file(file_data=url, filename=filename)

    def test_the_type_of_an_address_is_kept(self) -> None:
        """What is said of an address stands beside it, and wins over its name."""
        assert image_part("https://h/x", "image/png") == image(
            "https://h/x", media_type="image/png"
        )
        part = file_part("https://h/x.txt", "application/pdf")
        assert part == file(file_data="https://h/x.txt", media_type="application/pdf")
        made = read_media(part)
        assert made is not None
        assert made.media_type == "application/pdf"

    def test_a_data_url_says_its_type_itself(self) -> None:
        """The same type beside a data: URL says nothing new; another one is a mistake."""
        url = "data:image/png;base64,eA=="
        assert image_part(url, "image/PNG") == image(url)
        with pytest.raises(ConfigurationError, match="holds 'image/png', not 'image/gif'"):
            image_part(url, "image/gif")

    @pytest.mark.parametrize("media_type", ["", "png", 5])
    def test_what_is_no_type(self, media_type: Any) -> None:
        """A media type is one beside an address, too."""
        for make in (image_part, file_part):
            with pytest.raises(ConfigurationError, match="not a media type"):
                make("https://h/x", media_type)

    def test_an_address(self) -> None:
        """An address is taken as it is, with a name only where one is given."""
        assert file_part("https://h/x.pdf") == file(file_data="https://h/x.pdf")
        assert file_part("https://h/x", filename="a.pdf") == file(
            file_data="https://h/x", filename="a.pdf"
        )

    @pytest.mark.parametrize("source", [b"x", "x.pdf", None, "data:", "data:a/b;base64,e"])
    def test_mistakes(self, source: Any) -> None:
        """What is neither known bytes nor an address is refused."""
        with pytest.raises(ConfigurationError):
            file_part(source)

    @pytest.mark.parametrize("source", [PDF, "https://h/x.pdf"])
    def test_a_name_that_is_no_text(self, source: Any) -> None:
        """A filename is a text, or left out."""
        with pytest.raises(ConfigurationError, match="filename must be a str, not int"):
            file_part(source, filename=5)  # type: ignore[arg-type]


class TestReadMedia:
    @pytest.mark.parametrize(
        ("part", "media"),
        [
            (image("data:image/png;base64,eA=="), Media("image_url", "image/png", "eA==")),
            (
                image("DATA:Image/PNG;charset=x;BASE64,eA=="),
                Media("image_url", "image/png", "eA=="),
            ),
            (image("https://h/x"), Media("image_url", None, url="https://h/x")),
            (
                image("https://h/x.JPG?a=b.png", detail="auto"),
                Media("image_url", "image/jpeg", url="https://h/x.JPG?a=b.png"),
            ),
            (
                {"type": "image_url", "image_url": "https://h/x.png"},
                Media("image_url", "image/png", url="https://h/x.png"),
            ),
            (
                {**image("data:image/png;base64,eA=="), "cache_control": {"type": "ephemeral"}},
                Media(
                    "image_url",
                    "image/png",
                    "eA==",
                    beside={"cache_control": {"type": "ephemeral"}},
                ),
            ),
            (
                file(file_data="data:application/pdf;base64,eA==", filename="a"),
                Media("file", "application/pdf", "eA==", filename="a"),
            ),
            (
                file(file_data="https://h/x", filename="a.pdf"),
                Media("file", "application/pdf", url="https://h/x", filename="a.pdf"),
            ),
            (file(file_id="f1"), Media("file", file_id="f1")),
            (
                {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
                Media("input_audio", "audio/wav", "eA=="),
            ),
        ],
        ids=str,
    )
    def test_each_shape(self, part: dict[str, Any], media: Media) -> None:
        """Each shape of a part is one neutral value."""
        assert read_media(part) == media

    @pytest.mark.parametrize(
        "part", [{"type": "text", "text": "a"}, {"type": "image", "source": {}}, {"inlineData": {}}]
    )
    def test_whatever_else(self, part: dict[str, Any]) -> None:
        """Text and a provider's own parts are none of ours."""
        assert read_media(part) is None

    def test_what_is_made_is_read(self) -> None:
        """The parts that are made here are read here."""
        made = read_media(file_part(PDF, filename="a.pdf"))
        assert made is not None
        assert (made.media_type, made.decoded(), made.filename) == ("application/pdf", PDF, "a.pdf")

    @pytest.mark.parametrize(
        ("part", "said"),
        [
            ({"type": "image_url"}, "must have an object 'image_url'"),
            ({"type": "file", "file": 5}, "must have an object 'file'"),
            (image(None), "needs image_url.url, a URL"),
            (image(""), "needs image_url.url, a URL"),
            (image("x.png"), "is no URL"),
            (image("data:image/png,eA=="), "must look like data:image/png;base64"),
            (image("data:image/png;base64"), "must look like data:"),
            (image("data:;base64,eA=="), "no media type"),
            (image("data:png;base64,eA=="), "no media type"),
            (image("data:image/png;base64,"), "no base64 text"),
            (image("data:image/png;base64,e"), "is not base64"),
            (image("data:image/png;base64,eA==\n"), "is not base64"),
            (image("data:image/png;base64,é"), "is not base64"),
            (image("https://h/x", detail="high"), "detail: 'high'"),
            (image("https://h/x", format="image/png"), "cannot hold 'format'"),
            (image("https://h/x", media_type=5), "not a media type"),
            (file(file_url="https://h/x"), "cannot hold 'file_url'"),
            (file(), "needs file.file_data"),
            (file(file_data="eA=="), "is no URL"),
            (file(file_id=""), "either file_data or a file_id"),
            (file(file_id="a", file_data="data:a/b;base64,eA=="), "either file_data or a file_id"),
            (file(file_id="a", filename=5), "filename must be a str"),
            ({"type": "input_audio", "input_audio": {"data": "eA=="}}, "needs a format"),
            ({"type": "input_audio", "input_audio": {"format": "wav"}}, "no base64 text"),
        ],
        ids=str,
    )
    def test_mistakes(self, part: dict[str, Any], said: str) -> None:
        """A part that has not its type's shape is refused with what it lacks."""
        with pytest.raises(ConfigurationError, match=said):
            read_media(part)
