"""One answer that is not streamed: what the script says, as one JSON body."""

from __future__ import annotations

from collections.abc import Sequence

from ..completion import Accumulator, Completion
from ..events import StreamStart
from .actions import (
    Action,
    CallTool,
    Cut,
    Fail,
    FinishWith,
    Framing,
    Pause,
    Ping,
    Say,
    Stall,
    Think,
)
from .body import body
from .reply import Break, Pace, Reply, head_of

__all__ = ["WholeReply"]


class WholeReply(Reply):
    """An answer whose caller asked for it whole.

    Nothing is on the wire before the script has been played to its end. It takes its waits, but no
    time for each delta; `raw` has no place in it.
    """

    def play(self, actions: Sequence[Action], pace: Pace, how: Framing) -> None:
        """Play the script in silence, then send the headers and the body.

        Raises:
            APIError: The script fails, and the answer is an error with its status.
        """
        how, drip_s = head_of(actions, how)
        how = "length" if how == "chunked" else how  # it is known, so everybody tells it
        self._line.wait(pace.ttft_s())
        ends = [at for at, action in enumerate(actions) if isinstance(action, (FinishWith, Cut))]
        at = ends[0] if ends else len(actions)
        end = actions[at] if ends else FinishWith(None)
        answer = self._completion(actions[:at], end if isinstance(end, FinishWith) else None)
        content = self._provider.answer_body(answer)
        half = len(content) // 2
        short = isinstance(end, Cut) and end.how == "end"
        framed = body(how, self._line.send, half if short else len(content))
        headers = {"Content-Type": "application/json", **framed.headers}
        self._line.send_head({**headers, "X-Request-Id": self.request_id}, drip_s)
        if isinstance(end, Cut):
            framed.write(content[:half])
            self._break_off(Break(end.how, content[half:]), framed, how)
            return
        framed.write(content, lambda: self._sent(answer))
        for action in actions[at + 1 :]:
            if isinstance(action, Cut):
                self._break_off(Break(action.how), framed, how)
                return
            self._wait(action)
        framed.end()
        if how == "close":
            self._line.hang_up("polite")

    def _completion(self, actions: Sequence[Action], finish: FinishWith | None) -> Completion:
        """Fold what the script says; let the time pass that it takes."""
        answer = Accumulator(self._provider.name)
        answer.add(StreamStart(self._accepted.model, f"fake-{self._number}"))
        for action in actions:
            if isinstance(action, Fail):
                raise self._provider.api_error(action.status, action.message)
            if isinstance(action, (Say, Think, CallTool)):
                for event in self._events(action):
                    answer.add(event)
            else:
                self._wait(action)
        for event in self._last_events(finish or FinishWith(None)):
            answer.add(event)
        return answer.completion()

    def _wait(self, action: Action) -> None:
        if isinstance(action, Pause):
            self._line.wait(action.seconds)
        elif isinstance(action, Ping):
            self._line.wait(None if action.times is None else action.every_s * action.times)
        elif isinstance(action, Stall):
            self._line.wait(None)

    def _sent(self, answer: Completion) -> None:
        """Note the answer, before the client can see its end, and look."""
        if answer.text:
            self._recorded.sends_text()
        self._recorded.end("complete")
