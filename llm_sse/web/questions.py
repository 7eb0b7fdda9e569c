"""What the reference application is asked: whom, what, and how much of it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Optional

import msgspec
from msgspec import Struct

from ..errors import ConfigurationError
from .formats import FORMATS
from .problem import Problem, RefusedError

__all__ = ["Limits", "ModelName", "Question", "Stop", "Target", "bad", "convert", "texts"]

#: A name that nobody else hits upon, by chance or by trying: 128 bits in hexadecimal digits.
_NAME = re.compile(r"[A-Za-z0-9_-]{32,128}")

#: A model's name; the longest ones have a path of a site in them.
ModelName = Annotated[str, msgspec.Meta(max_length=256)]
#: Where the parts of a message have their data. Source:
#: https://platform.openai.com/docs/api-reference/chat/create
_DATA = {"image_url": "url", "file": "file_data", "input_audio": "data"}


@dataclasses.dataclass(frozen=True)
class Target:
    """A provider that visitors may ask.

    Attributes:
        name: Its name on the page, and before the slash in OpenAI's `model`.
        model: Its model where the visitor names none.
        arguments: How `stream_sync` reaches it: `provider`, and what else it needs.
        fake: Whether it is the built-in one.
    """

    name: str
    model: str
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    fake: bool = False


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one visitor, and all of them, may ask for.

    Attributes:
        max_streams: How many answers may run at once.
        max_streams_per_client: How many of them for one address.
        max_prompt_chars: The longest question in characters: the whole conversation, and all else
            that is written in the request.
        max_request_bytes: The largest request body.
    """

    max_streams: int = 32
    max_streams_per_client: int = 8
    max_prompt_chars: int = 32_000
    max_request_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{field.name} must be at least 1, not {value!r}")

    def check_length(self, texts: Iterable[str | None]) -> None:
        """Refuse a question that is too long.

        Raises:
            RefusedError: It is.
        """
        most = self.max_prompt_chars
        if sum(len(text or "") for text in texts) > most:
            raise bad(f"The question is longer than {most} characters.", status=413)


class Question(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /stream`, or the query of `GET /stream`.

    Attributes:
        prompt: The question.
        provider: Who is asked; the first of `/api/providers` if nobody is named.
        model: The model, else the provider's default.
        system: Instructions that stand above the question.
        max_tokens: The most tokens that the answer may have.
        temperature: Sampling temperature.
        format: How the answer is told; see `sse_response`.
        name: A new name for this question, of 32 random characters at least: who asks the same
            again under it joins the answer, instead of paying for another one, and who knows it can
            end the answer (`Stop`).
    """

    prompt: str
    provider: Optional[str] = None
    model: Optional[ModelName] = None
    system: Optional[str] = None
    max_tokens: Optional[int] = None
    temperature: Optional[float] = None
    format: str = "tokens"
    name: Optional[str] = None

    def check(self, limits: Limits) -> None:
        """Refuse what cannot be asked here.

        Raises:
            RefusedError: It is too long, in an unknown format, or under a name that can be guessed.
        """
        if self.format not in FORMATS:
            raise bad(f"unknown format {self.format!r}; there are: {', '.join(FORMATS)}")
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise bad("name must be 32 to 128 letters, digits, '-' and '_', chosen at random")
        limits.check_length((self.prompt, self.system))

    @property
    def arguments(self) -> dict[str, Any]:
        """What `stream_sync` is told beside the model."""
        names = ("prompt", "system", "max_tokens", "temperature")
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def stream_name(self) -> str | None:
        """The name of the answer; another question under the same name has another one."""
        if self.name is None:
            return None
        return f"{self.name} {hashlib.sha256(msgspec.json.encode(self)).hexdigest()}"


class Stop(Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /stop`.

    Attributes:
        name: The name that the question had.
    """

    name: str


def convert(type_: type[Any], value: Any, *, strict: bool = True) -> Any:
    """Read what was asked.

    Args:
        type_: What it is.
        value: What came.
        strict: Whether numbers must be numbers; in a query they are texts.

    Raises:
        RefusedError: It is not what the type says.
    """
    try:
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        raise bad(str(error)) from error


def texts(value: Any) -> Iterator[str]:
    """Yield all that is written in JSON: texts, names, numbers.

    The data of a picture, a file or a sound is bounded by the request's size. It is known by its
    place in a part of a message: a text that looks like it is a text.
    """
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield from one
            left += _without_data(one).values()
        elif isinstance(one, list):
            left += one
        else:
            yield one if isinstance(one, str) else str(one)


def _without_data(part: dict[str, Any]) -> dict[str, Any]:
    """Return an object without the data, if it is a part that has any."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _DATA:
        return part
    name, inner = _DATA[kind], part.get(kind)
    if not isinstance(inner, dict) or not isinstance(inner.get(name), str):
        return part
    if name == "url" and not inner[name].startswith("data:"):
        return part
    return {**part, kind: {**inner, name: ""}}


def bad(detail: str, *, status: int = 400) -> RefusedError:
    """Return the refusal of a request that is wrong."""
    titles = {400: "Bad Request", 413: "Content Too Large", 415: "Unsupported Media Type"}
    return RefusedError(
        Problem(
            title=titles[status],
            status=status,
            detail=detail,
            code="invalid_request",
            retryable=False,
        )
    )
