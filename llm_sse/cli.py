"""The command `llm-sse`: a model's answer on standard output, token by token.

It is the only module that needs `click` and `rich`, the extra `cli`; nothing imports it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import requests

from ._version import __version__
from .bench import INTERRUPTED, check_plot, draw, print_result, progress
from .bench import as_csv as csv_of
from .chat import redact_url
from .completion import Completion
from .errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    InvalidRequestError,
    ProtocolError,
    RateLimitError,
    ServerError,
    StreamError,
    StreamTimeout,
)
from .events import FellBack, Finish, Retrying, TextDelta
from .metrics import StreamMetrics
from .providers import (
    FORMATS,
    PROVIDERS,
    Provider,
    find_provider,
    provider_names,
    unused_offers,
)
from .spread import MIN_RUNS
from .sync.ask import stream_sync
from .sync.benchmark import Measurement
from .sync.redaction import MIN_KEY_CHARS
from .sync.stream import TokenStream
from .testing.server import FakeServer

if TYPE_CHECKING:
    from .web.app import Target

_NEEDS_EXTRA = 'llm-sse: the command needs the extra "cli": pip install "llm-sse[cli]"'
_NEEDS_SERVE = 'llm-sse: `serve` needs the extra "serve": pip install "llm-sse[cli,serve]"'

try:
    import click
    from click.core import ParameterSource
except ModuleNotFoundError:
    print(_NEEDS_EXTRA, file=sys.stderr)
    raise SystemExit(2) from None

__all__ = ["cli", "main"]

_INTERRUPTED = 130
#: What a shell reports of a program that SIGPIPE ended.
_CLOSED_PIPE = 141

_EXIT_CODES: tuple[tuple[int, str, tuple[type[StreamError], ...]], ...] = (
    (0, "the answer is complete", ()),
    (2, "wrong usage or configuration, such as a missing key", (ConfigurationError,)),
    (3, "the provider does not accept the key", (AuthenticationError,)),
    (4, "rate limit or quota", (RateLimitError,)),
    (5, "the provider does not accept the request", (InvalidRequestError,)),
    (6, "the provider failed or is overloaded", (ServerError,)),
    (7, "no connection, or it was lost", (ConnectError, ConnectionLost)),
    (8, "the provider took too long", (StreamTimeout,)),
    (9, "the answer was not what the provider's protocol allows", (ProtocolError,)),
    (1, "any other error", (StreamError,)),
    (_INTERRUPTED, "interrupted by Ctrl-C", ()),
    (_CLOSED_PIPE, "whoever read the output has closed the pipe", ()),
)
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"{code:5}  {text}" for code, text, _ in _EXIT_CODES)

#: A narrower terminal gets the base URLs below the models.
_WIDE_COLUMNS = 110

_COUNT = click.IntRange(min=1)
_FROM_0 = click.FloatRange(min=0)
_ABOVE_0 = click.FloatRange(min=0, min_open=True)

#: C0, DEL and C1 but for tab and line feed: everything that begins a terminal's control sequence.
_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")})


def main() -> None:
    """Run the command with the process's arguments, and exit."""
    cli(prog_name="llm-sse")


class _PromptOrCommand(click.Group):
    """A group that asks a model unless the first word is exactly the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave what is no option and no command in `ctx.args`: the prompt."""
        # The shell's bytes need not be UTF-8, but a request is.
        args = [arg.encode("utf-8", "replace").decode() for arg in args]
        if args and args[0] in self.commands:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True  # options may follow the prompt
        return click.Command.parse_args(self, ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn every ending into its exit code."""
        # A character that has no encoding is no reason to lose the rest.
        for stream in (sys.stdin, sys.stdout):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except StreamError as error:
            _note(f"error: {error}")
            sys.exit(next(code for code, _, kinds in _EXIT_CODES if isinstance(error, kinds)))
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        except BrokenPipeError:
            _drop_output()
            sys.exit(_CLOSED_PIPE)
        except OSError as error:  # of our own output: the network's are StreamErrors
            _note(f"error: {error}")
            _drop_output()
            sys.exit(1)


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of providers that a shell may complete a word to."""
    return [name for name in provider_names() if name.startswith(incomplete)]


@click.group(
    cls=_PromptOrCommand,
    invoke_without_command=True,
    subcommand_metavar="[PROMPT] | COMMAND [ARGS]...",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option(
    "-p",
    "--provider",
    metavar="NAME",
    shell_complete=_names,
    help="Whom to ask, of those that `llm-sse providers` lists; else the first whose key is set.",
)
@click.option(
    "--fallback",
    metavar="NAME",
    multiple=True,
    shell_complete=_names,
    help="Who is asked when the provider fails or is late; may be given several times.",
)
@click.option("-m", "--model", help="The model; else the environment's or the provider's default.")
@click.option("-s", "--system", help="Instructions that stand above the prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The longest answer, in tokens.")
@click.option("--temperature", type=_FROM_0, help="Sampling temperature.")
@click.option("--base-url", help="Another server that speaks the provider's format.")
@click.option("--json", "as_json", is_flag=True, help="Print every event, as one line of JSON.")
@click.option(
    "--record",
    type=click.Path(),
    help="Write requests and responses to a new file, without the key.",
)
@click.option("--stats", is_flag=True, help="Print the pace and the usage on standard error.")
@click.version_option(__version__, prog_name="llm-sse")
@click.pass_context
def cli(
    ctx: click.Context,
    /,
    provider: str | None,
    base_url: str | None,
    as_json: bool,
    stats: bool,
    **question: Any,
) -> None:
    """Ask a model; its answer streams to standard output.

    PROMPT is the question; "-", or no PROMPT and a pipe, reads it from standard input. To ask a
    command's name, write it after "--". Keys come from the environment; without any key, a
    built-in fake provider answers.
    """
    if ctx.invoked_subcommand is not None:
        return
    prompt = _prompt(ctx)
    with (
        _target(provider, base_url, question["model"]) as target,
        stream_sync(prompt, **target, **question) as stream,
    ):
        _print(stream, as_json)
        if stats:
            _note(_stats(stream.metrics, stream.completion))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def providers(as_json: bool) -> None:
    """List the providers, and whose keys are set."""
    rows = [
        {
            "name": row.name,
            "model": os.environ.get(row.model_env) or row.model or None,
            "model_from": row.model_env if os.environ.get(row.model_env) else None,
            "base_url": redact_url(_base_url(row)) or None,
            "base_url_from": row.base_url_env if os.environ.get(row.base_url_env) else None,
            "keys": {name: bool(os.environ.get(name)) for name in row.key_env},
        }
        for row in _rows()
    ]
    for complaint in unused_offers():
        _note(complaint)
    if as_json:
        click.echo(msgspec.json.encode(rows))
    else:
        _print_table(rows)


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="0 takes a free one.")
@click.option("--text", help="What it answers.")
@click.option("--ttft-s", type=_FROM_0, default=0.2, help="Seconds to the first token.")
@click.option("--tokens-per-s", type=_ABOVE_0, default=40.0, help="The pace after it.")
@click.option(
    "--replay",
    type=click.Path(),
    multiple=True,
    help="A recording that it plays instead; several follow one another.",
)
@click.option(
    "--replay-speed", type=_ABOVE_0, default=1.0, help="How many times faster than recorded."
)
def fake(
    *,
    port: int,
    text: str | None,
    ttft_s: float,
    tokens_per_s: float,
    replay: tuple[str, ...],
    replay_speed: float,
) -> None:
    """Serve a fake provider to any client, until Ctrl-C."""
    said = click.get_current_context().get_parameter_source
    for name in ("text", "ttft_s", "tokens_per_s") if replay else ("replay_speed",):
        if said(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} and --replay do not go together"
                if replay
                else f"{option} needs --replay"
            )
    given: dict[str, Any] = {"ttft_s": ttft_s, "tokens_per_s": tokens_per_s}
    if replay:
        given = {"replay": replay, "replay_speed": replay_speed}
    elif text is not None:
        given["text"] = text
    # A supervisor's stop is as good as a person's.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        suppress(KeyboardInterrupt),
        FakeServer(port=port, **given) as server,
    ):
        names = [row.name for row in _rows()]
        width = max(map(len, names))
        for name in names:
            click.echo(f"{name:<{width}} {server.base_url(name)}")
        where = server.base_url("openai")
        _note(f"a program asks it with OPENAI_API_KEY=any OPENAI_BASE_URL={where}")
        _wait()


@cli.command()
@click.option("--host", default="127.0.0.1", help="The address; beyond loopback it needs --token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8766, help="0 takes a free one.")
@click.option(
    "-p",
    "--provider",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=_names,
    help="Who can be asked; may be given several times. Else all whose key is set.",
)
@click.option(
    "--token",
    envvar="LLM_SSE_TOKEN",
    show_envvar=True,
    help="What visitors have to know. Others see the command line, but not the environment.",
)
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name under which it is known.")
@click.option(
    "--allow-origin", metavar="URL", multiple=True, help="Another site whose pages may ask."
)
@click.option("--max-streams", type=_COUNT, default=32, help="Answers at once.")
@click.option("--max-streams-per-client", type=_COUNT, default=8, help="Of them, per address.")
@click.option(
    "--grace-s",
    type=click.FloatRange(0, min_open=True),
    default=15.0,
    help="How long an answer goes on that nobody reads; its reader may come back.",
)
@click.option("--max-prompt-chars", type=_COUNT, default=32_000, help="The longest question.")
@click.option("--max-request-bytes", type=_COUNT, default=1024 * 1024, help="The largest body.")
def serve(
    *,
    host: str,
    port: int,
    names: tuple[str, ...],
    token: str | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    grace_s: float,
    **limits: int,
) -> None:
    """Serve a page that streams, and OpenAI's API, until Ctrl-C."""
    try:
        # Only here, because they are in an extra of their own.
        from .web.app import Limits, Site  # noqa: PLC0415
        from .web.guard import Guard, is_loopback  # noqa: PLC0415
        from .web.serve import listen  # noqa: PLC0415
        from .web.serve import serve as run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("flask", "waitress", "werkzeug"):
            raise
        click.echo(_NEEDS_SERVE, err=True)
        sys.exit(2)
    token = token or None
    if token is None and not is_loopback(host):
        raise click.UsageError(
            f"--host {host} is reached by others: it needs --token, or LLM_SSE_TOKEN"
        )
    guard = Guard(token=token, hosts=allow_host, origins=allow_origin)
    with _targets(names) as targets, listen(host, port) as listener:
        at = listener.getsockname()
        # What listens everywhere is under no such address: the site refuses it as a host.
        address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(at[0], at[0])
        shown = f"[{address}]" if ":" in address else address
        site = Site(targets, guard=guard, limits=Limits(**limits), grace_s=grace_s)
        run(site, listener, lambda: click.echo(f"http://{shown}:{at[1]}/"))


@cli.command()
@click.argument("prompt", default="Explain server-sent events in five sentences.")
@click.option(
    "-p",
    "--provider",
    "names",
    metavar="NAME[:MODEL]",
    multiple=True,
    shell_complete=_names,
    help="Whom to measure; may be given several times. Else one for each key that is set.",
)
@click.option(
    "-n",
    "--iterations",
    type=click.IntRange(min=MIN_RUNS),
    default=MIN_RUNS,
    help="How often each is asked.",
)
@click.option("-s", "--system", help="Instructions that stand above the prompt.")
@click.option("--max-tokens", type=_COUNT, default=200, help="The longest answer, in tokens.")
@click.option("--temperature", type=_FROM_0, help="Sampling temperature.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV for each run.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the distributions to a file.")
def bench(
    *,
    prompt: str,
    names: tuple[str, ...],
    iterations: int,
    as_json: bool,
    as_csv: bool,
    plot: str | None,
    **question: Any,
) -> None:
    """Measure providers against each other: time to the first token, gaps, tokens per second.

    They are asked in turn, at least 5 times each; without any key, the built-in fake provider is
    measured.
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv do not go together")
    if plot is not None:
        check_plot(plot)
    with _measured(names) as providers:
        measurement = Measurement(providers, prompt, iterations, question)
        try:
            with progress(iterations * len(providers)) as on_run, suppress(KeyboardInterrupt):
                measurement.run(on_run)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "rich":
                raise
            click.echo(_NEEDS_EXTRA, err=True)
            sys.exit(2)
    result = measurement.result()
    if as_json:
        click.echo(msgspec.json.encode(result))
    elif as_csv:
        click.echo(csv_of(result).translate(_CONTROL), nl=False)
    else:
        print_result(result, lambda text: text.translate(_CONTROL))
    for provider in result.providers:
        for failure in provider.errors:
            _note(f"{provider.label}, run {failure.iteration}: {failure.message}")
    if plot is not None:
        draw(result, plot)
    if result.interrupted:  # what there is was paid for, and is shown
        _note(INTERRUPTED)
        sys.exit(_INTERRUPTED)
    if not any(provider.runs for provider in result.providers):
        sys.exit(1)


@contextmanager
def _measured(names: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Say who is measured: those who are named, else who is ready, else a fake.

    Of the rows that share a key, which are one vendor's, the first is measured.
    """
    vendors: dict[tuple[str, ...], str] = {}
    for row in PROVIDERS.values():
        if _is_ready(row, None):
            vendors.setdefault(row.key_env, row.name)
    ready = names or tuple(vendors.values())
    if not ready:
        with _fake("the figures come") as arguments:
            yield [arguments]
        return
    split = (name.partition(":") for name in ready)
    yield [{"provider": name, "model": model or None} for name, _, model in split]


def _rows() -> Iterator[Provider]:
    """Yield all rows; say of those that other distributions offer why one cannot be loaded."""
    for name in provider_names():
        try:
            yield find_provider(name)
        except ConfigurationError as error:
            _note(f"error: {error}")


def _base_url(row: Provider) -> str:
    """Return where a provider is; what the environment says wrongly is shown as it stands."""
    try:
        return row.find_base_url(os.environ)
    except ConfigurationError:
        return os.environ.get(row.base_url_env, "")


def _is_ready(row: Provider, model: str | None) -> bool:
    """Whether a provider can be asked without saying more: there is a key, a model, an address."""
    environ = os.environ
    return (
        any(environ.get(name) for name in row.key_env)
        and bool(model or environ.get(row.model_env) or row.model)
        and bool(environ.get(row.base_url_env) or row.base_url)
    )


def _prompt(ctx: click.Context) -> str:
    """Return the question, from the arguments or from standard input."""
    if len(ctx.args) > 1:
        ctx.fail("the prompt must be one argument: put it in quotes")
    if ctx.args and ctx.args != ["-"]:
        prompt: str = ctx.args[0]
    elif not ctx.args and sys.stdin.isatty():
        click.echo(ctx.get_help())
        ctx.exit()
    else:
        prompt = sys.stdin.read()
    if not prompt.strip():
        ctx.fail("the prompt is empty")
    return prompt


@contextmanager
def _targets(names: Sequence[str]) -> Iterator[list[Target]]:
    """Say who can be asked on a page: those who are named, else who is ready, else a fake.

    Raises:
        ConfigurationError: A provider that is named lacks its key, its model or its address.
    """
    from .web.app import Target  # noqa: PLC0415 - it needs Flask

    rows = [find_provider(name) for name in dict.fromkeys(names)]
    for row in rows:
        if not _is_ready(row, None):
            raise ConfigurationError(
                f"{row.name} cannot be asked: set {' or '.join(row.key_env)}, and, where it has no "
                f"default, {row.model_env} and {row.base_url_env}",
                provider=row.name,
            )
    rows = rows or [row for row in PROVIDERS.values() if _is_ready(row, None)]
    if rows:
        models = (os.environ.get(row.model_env) or row.model for row in rows)
        yield [
            Target(row.name, model, {"provider": row.name})
            for row, model in zip(rows, models, strict=True)
        ]
        return
    with _fake("the answers come") as arguments:
        yield [Target("fake", "fake", arguments, fake=True)]


@contextmanager
def _fake(what: str) -> Iterator[dict[str, Any]]:
    """Run the built-in fake provider, say so, and say how it is reached."""
    rows = [PROVIDERS[name] for name in FORMATS]
    keys = ", ".join(dict.fromkeys(" or ".join(row.key_env) for row in rows))
    _note(f"no key found ({keys}, ...): {what} from the built-in fake provider")
    first = next(iter(PROVIDERS))
    with FakeServer(ttft_s=0.2, tokens_per_s=40) as server, requests.Session() as session:
        session.trust_env = False  # a proxy cannot reach this machine's loopback
        yield {
            "provider": first,
            "base_url": server.base_url(first),
            "api_key": "fake",
            "session": session,
        }


@contextmanager
def _target(
    provider: str | None, base_url: str | None, model: str | None
) -> Iterator[dict[str, Any]]:
    """Say where the question goes, in arguments of `stream_sync`: to a fake if to nobody else."""
    ready = [row.name for row in PROVIDERS.values() if _is_ready(row, model)]
    if not (provider or base_url or ready):  # only now, for looking at the others takes time
        ready = [row.name for row in _rows() if _is_ready(row, model)]
    first = next(iter([*ready, *PROVIDERS]))
    if provider or base_url or ready:
        yield {"provider": provider or first, "base_url": base_url}
        return
    with _fake("this answer comes") as arguments:
        yield arguments


def _print(stream: TokenStream, as_json: bool) -> None:
    """Print an answer, end its last line whatever happens, and say what the text does not."""
    if as_json and isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # JSON has no other
    if getattr(sys, "stdout", None) is None:  # closed by whoever started us
        raise OSError("there is no standard output")
    finish = Finish("stop")
    shown = ""
    try:
        for event in stream.events():
            if as_json:
                _write(msgspec.json.encode(event).decode() + "\n")
            elif isinstance(event, TextDelta):
                # Noted first: Ctrl-C may come as soon as the text is out.
                shown = _harmless(event.text) or shown
                _write(event.text)
            elif isinstance(event, Retrying):
                _note(f"{event.error}; trying again in {event.delay_s:.1f} s")
            elif isinstance(event, FellBack):
                _note(f"{event.error}; asking {event.provider}")
            if isinstance(event, Finish):
                finish = event
    finally:
        if shown and not shown.endswith("\n"):
            _write("\n")
    if refusal := stream.completion.refusal:
        _note(f"the model refuses: {refusal}")
    if finish.reason != "stop":
        details = ": ".join(filter(None, (finish.raw_reason, finish.message)))
        _note(f"the answer ended early: {finish.reason}" + (f" ({details})" if details else ""))


def _harmless(text: str) -> str:
    """Return what a terminal may be shown of model text; a pipe gets it unchanged."""
    return text.translate(_CONTROL) if sys.stdout.isatty() else text


def _write(text: str) -> None:
    """Print model text at once."""
    sys.stdout.write(_harmless(text))
    sys.stdout.flush()


def _stats(metrics: StreamMetrics, completion: Completion) -> str:
    """Return the figures that there are, in one line."""
    usage = completion.usage
    figures = (
        ("first text after {:.0f} ms", metrics.ttft_ms),
        ("longest gap {:.2f} s", metrics.longest_gap_s),
        ("{:.1f} s in all", metrics.total_s),
        ("{} deltas", metrics.deltas),
        ("{:.1f} deltas/s", metrics.deltas_per_s),
        ("{:.1f} tokens/s", metrics.output_tokens_per_s),
        ("{} input tokens", usage and usage.input_tokens),
        ("{} of them cached", usage and usage.cached_input_tokens),
        ("{} output tokens", usage and usage.output_tokens),
        ("{} of them reasoning", usage and usage.reasoning_tokens),
    )
    return ", ".join(form.format(value) for form, value in figures if value is not None)


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Print the providers for people."""
    try:
        # Only here, because it takes longer to import than everything else.
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
    except ModuleNotFoundError:
        click.echo(_NEEDS_EXTRA, err=True)
        sys.exit(2)
    console = Console(markup=False, emoji=False, highlight=False)
    wide = console.width >= _WIDE_COLUMNS
    where = ("model", "base URL") if wide else ("model\nbase URL",)
    table = Table("provider", *where, "keys", box=None, pad_edge=False)
    for column in table.columns[1:-1]:
        column.overflow = "fold"
    for row in rows:
        model, url = (
            (row[what] or "-") + (f"\n(from {row[source]})" if row[source] else "")
            for what, source in (("model", "model_from"), ("base_url", "base_url_from"))
        )
        keys = (f"{name} {'set' if there else 'unset'}" for name, there in row["keys"].items())
        cells = (model, url) if wide else (f"{model}\n{url}",)
        table.add_row(row["name"], *cells, "\n".join(keys))
    console.print(table)


def _note(text: str) -> None:
    """Print one line on standard error: nobody's line breaks, control characters or keys in it."""
    for row in list(PROVIDERS.values()):
        for key in filter(None, map(os.environ.get, row.key_env)):
            if len(key) >= MIN_KEY_CHARS:
                text = text.replace(key, "***")
    click.echo("llm-sse: " + " ".join(text.split()).translate(_CONTROL), err=True)


def _wait() -> NoReturn:
    """Wait for a signal, in slices because Windows would not notice one within a wait."""
    never = threading.Event()
    while True:
        never.wait(0.5)


def _drop_output() -> None:
    """Let the interpreter's last flush succeed, where nobody can be written to any more."""
    with suppress(OSError), open(os.devnull, "wb") as devnull:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(devnull.fileno(), stream.fileno())
