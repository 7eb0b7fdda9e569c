"""What each stream of the soak meets: drawn from its seed, so that both processes draw the same.

A `Case` is one stream: its answer, word by word numbered, what the server does to it, and how its
reader behaves. `endings()` says how it may end, by the same rules that the documentation gives.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from msgspec import Struct

from llm_sse import RetryPolicy, Timeouts
from llm_sse.events import FinishReason
from llm_sse.testing import Framing

from .soak_faults import FAULTS, FINISH, Fault, timeout

__all__ = ["Case", "draw", "endings", "outlasts_s"]

PROVIDERS = ("openai", "anthropic", "gemini")

#: Framings, each as often as the machine can bear it: two of them cost a read for every byte.
FRAMINGS: dict[Framing, int] = {
    "chunked": 4,
    "close": 4,
    "length": 4,
    "gzip": 4,
    "bytes": 1,
    "dribble": 1,
}

#: The servers, from which each stream chooses one: which of them speak TLS, close the connection
#: without a word after each answer, and answer as fast as they can.
SERVERS = (
    {"tls": False, "close_after": False, "fast": False},
    {"tls": True, "close_after": False, "fast": False},
    {"tls": False, "close_after": True, "fast": False},
    {"tls": True, "close_after": True, "fast": False},
    {"tls": False, "close_after": False, "fast": True},
    {"tls": True, "close_after": True, "fast": True},
)

#: The limit that a fault is meant to trip. It is long enough for a machine that is busy.
SHORT_S = 2.5
LONG_S = 60.0

#: Which part of the streams meets no fault at all.
CALM = 0.6

Reader = Literal["tokens", "events", "next", "text"]
Manner = Literal["read", "slow", "pause", "break", "raise", "close", "drop"]

_AGAIN = tuple(fault for fault in FAULTS if fault.again)


class Case(Struct, frozen=True, kw_only=True):
    """One stream of the soak.

    Attributes:
        seed: From which all the rest is drawn; the prompt carries it to the server.
        provider: In whose format it is asked.
        server: Which of the servers is asked.
        framing: How the answer's body is framed.
        words: The answer's words.
        reasoning: What comes before it.
        calls_tool: Whether a tool call comes after it.
        reason: Why it ends.
        faults: What happens to the first attempt, the second, ...; later ones are unharmed.
        positions: After how many words that is, where it is in the middle; each further on.
        reader: How the stream is read.
        manner: What the reader does beside reading.
        leave_after: After how many deltas a reader leaves, or pauses.
        close_after_s: When another thread closes the stream.
        waits_for_start: Whether `wait_started()` comes first.
        buffer_size: The stream's.
        timeouts: The stream's.
        retry: The stream's.
    """

    seed: str
    provider: str
    server: int
    framing: Framing
    words: tuple[str, ...]
    reasoning: str
    calls_tool: bool
    reason: FinishReason
    faults: tuple[Fault, ...]
    positions: tuple[int, ...]
    reader: Reader
    manner: Manner
    leave_after: int
    close_after_s: float
    waits_for_start: bool
    buffer_size: int
    timeouts: Timeouts
    retry: RetryPolicy

    @property
    def prompt(self) -> str:
        """The question."""
        return f"soak {self.seed}."

    @property
    def text(self) -> str:
        """The answer."""
        return " ".join(self.words)

    @property
    def arguments_text(self) -> str:
        """The tool call's arguments."""
        return f'{{"seed":"{self.seed}","city":"Troms\u00f8 in the far north"}}'

    def fault(self, attempt: int) -> Fault | None:
        """Return what happens to an attempt, counted from 0."""
        return self.faults[attempt] if attempt < len(self.faults) else None

    def __str__(self) -> str:
        faults = ", ".join(fault.name for fault in self.faults) or "no fault"
        return (
            f"{self.seed} ({self.provider}, server {self.server}, {self.framing}, {self.reader}, "
            f"{self.manner}, buffer {self.buffer_size}, {self.retry.max_retries} retries, "
            f"{self.retry.max_resumes if self.retry.resume else 0} resumptions: {faults})"
        )


def draw(seed: str) -> Case:
    """Draw a stream from its seed, a text without spaces; `calm...` is one without faults."""
    rng = random.Random(seed)
    calm = seed.startswith("calm")
    faults: tuple[Fault, ...] = ()
    if not calm and rng.random() > CALM:
        faults = _draw_faults(rng)
    lossy = any(fault.lossy for fault in faults)
    how = rng.choices(tuple(FRAMINGS), tuple(FRAMINGS.values()))[0]
    count = rng.randint(8, 12 if FRAMINGS[how] == 1 else 80)
    reader: Reader = rng.choice(get_args(Reader))
    manner = "read" if calm else _draw_manner(rng, reader)
    return Case(
        seed=seed,
        provider=rng.choice(PROVIDERS),
        server=rng.randrange(len(SERVERS)),
        framing=how,
        words=tuple(_word(rng, index) for index in range(count)),
        # An answer of which nothing but its reasoning arrived is asked for anew, reasoning and all.
        reasoning="" if lossy or rng.random() < 0.7 else "Let me see. 0 1 2 3",
        calls_tool=rng.random() < 0.2 or any(fault.place == "call" for fault in faults),
        reason=rng.choice(("stop", "stop", "length")),
        faults=faults,
        positions=_draw_positions(rng, count, len(faults)),
        reader=reader,
        manner=manner,
        leave_after=rng.randint(0, count),
        close_after_s=rng.uniform(0, 1.5),
        waits_for_start=rng.random() < 0.1,
        buffer_size=rng.choice((1, 2, rng.randint(3, 20), 50, rng.randint(51, 200))),
        timeouts=_timeouts(faults),
        retry=RetryPolicy(
            max_retries=rng.randint(0, 3),
            backoff_s=rng.choice((0.0, 0.05, 0.2)),
            max_backoff_s=1.0,
            resume=rng.random() < 0.5,
            max_resumes=rng.randint(1, 3),
        ),
    )


def endings(case: Case) -> frozenset[str]:
    """Say how a stream may end: `finish`, `left`, `closed`, or an error's class."""
    allowed = _endings(case, 0, 0, 0)
    for fault in case.faults:
        # A limit that is short may be tripped before its fault, on a machine that is busy.
        if fault.clock is not None:
            allowed |= set(timeout(fault.clock))
    if case.manner in ("break", "raise", "drop"):
        allowed.add("left")
    if case.manner == "close":
        allowed |= {"closed", "StreamClosed"}
    return frozenset(allowed)


def _endings(case: Case, attempt: int, retries: int, resumes: int) -> set[str]:
    """Walk through the attempts that are left.

    What can take the status along (`lossy`) may look like anything, from a connection that had been
    closed before it was used, which is replaced without counting, to an answer that was cut.
    """
    fault = case.fault(attempt)
    if fault is None:
        return set(FINISH)
    if fault.goes_on or fault.place == "end":
        return set(fault.endings)
    policy = case.retry
    found: set[str] = set()
    if fault.place in ("middle", "call"):
        may_resume = fault.again and policy.resume and resumes < policy.max_resumes
        found |= _endings(case, attempt + 1, 0, resumes + 1) if may_resume else set(fault.endings)
    if fault.place in ("instead", "start") or fault.lossy:
        may_retry = fault.again and retries < policy.max_retries
        found |= (
            _endings(case, attempt + 1, retries + 1, resumes) if may_retry else set(fault.endings)
        )
    if fault.lossy:
        found |= _endings(case, attempt + 1, retries, resumes)
    return found


def _draw_faults(rng: random.Random) -> tuple[Fault, ...]:
    """Draw one fault, or several, of which all but the last one are worth another attempt."""
    count = rng.choice((1, 1, 1, 2, 2, 3))
    return (*(rng.choice(_AGAIN) for _ in range(count - 1)), rng.choice(FAULTS))


def _draw_manner(rng: random.Random, reader: Reader) -> Manner:
    if reader == "text":
        return "read" if rng.random() < 0.9 else "close"
    if rng.random() < 0.6:
        return "read"
    return rng.choice(get_args(Manner)[1:])


def _draw_positions(rng: random.Random, count: int, faults: int) -> tuple[int, ...]:
    """Draw after how many words each fault comes: at least one, each further on than the last."""
    return tuple(sorted(rng.sample(range(1, count + 1), faults)))


def _word(rng: random.Random, index: int) -> str:
    """Make a word that tells its place; now and then one whose bytes can be cut apart."""
    letters = "".join(rng.choices("abcdefghij\u00e9\u4e16\U0001f642", k=rng.randint(1, 8)))
    return f"{index:04}{letters}"


def _timeouts(faults: Sequence[Fault]) -> Timeouts:
    short = {fault.clock for fault in faults}
    return Timeouts(
        connect_s=30.0,
        first_token_s=SHORT_S if "first_token" in short else LONG_S,
        idle_s=SHORT_S if "idle" in short else LONG_S,
        total_s=SHORT_S if "total" in short else LONG_S,
    )


def outlasts_s(case: Case) -> float:
    """Return how long a stream may last at most, its reader's own pauses not counted."""
    first, total = case.timeouts.first_token_s or LONG_S, case.timeouts.total_s or LONG_S
    only = len(case.faults) == 1 and case.faults[0].clock == "first_token"
    return min(first, total) if only else total
