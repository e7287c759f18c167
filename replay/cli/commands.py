"""The verbs of the command: each is a module that is imported when used. Errors are reported here.

Every error is printed as one line and sets the exit code, unless REPLAY_DEBUG is 1.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay._version import __version__
from replay.errors import (
    Exit,
    ReplayError,
    Sending,
    exit_code_now,
    reason_of,
)
from replay_native.ground import hooks

from . import interrupts, streams
from .help import context_settings
from .streams import say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VERBS = {
    "import": ("import_", "Turn logs and other recordings into a trace."),
    "record": ("record", "Record live HTTP traffic or Kafka topics to a trace."),
    "generate": ("generate", "Make a trace of synthetic traffic."),
    "transform": ("transform", "Make a trace from another one: cut, sample, scale, speed up."),
    "inspect": ("inspect", "Show what is in a trace or a log."),
    "export": ("export", "Write a trace as Parquet, CSV, .gor, HAR, vegeta targets or log lines."),
    "runs": ("runs", "List runs, or show where they got slower or faster (--trend)."),
    "demo": ("demo", "Replay a small example against a built-in service."),
    "init": ("init", "Write a commented scenario for a trace and a target."),
    "run": ("run", "Replay a trace or a log against a target."),
    "follow": ("follow", "Replay a growing log against a target, a few seconds later."),
    "peak": ("peak", "Find the highest load that a target sustains, and whether it recovers."),
    "report": ("report", "Show the report of a run."),
    "compare": ("compare", "Compare runs of two builds: is the new one slower?"),
    "diff": ("diff", "Compare the responses of two builds: are they the same?"),
    "ab": ("ab", "Run two builds in turns and compare them."),
    "serve": ("serve", "Show the runs of a folder in a browser."),
    "rehearse": ("rehearse", "Rehearse ten failures and their fixes against a twin of an app."),
    "twin": ("twin", "Run services with limits on loopback, and change them while they run."),
    "agent": ("agent", "Send one machine's share of a run over many machines."),
    "merge": ("merge", "Merge the run folders of agents into one run."),
    "doctor": ("doctor", "Show what this machine can do, and what it lacks."),
}
"""The module and the help line of each verb, so that the help imports none of the modules."""

GROUPS = {
    "Traffic": ("import", "record", "generate", "transform", "inspect", "export"),
    "Run": ("demo", "init", "run", "follow", "peak"),
    "Judge": ("report", "runs", "compare", "diff", "ab", "serve"),
    "Rehearse": ("rehearse", "twin"),
    "Machines": ("agent", "merge", "doctor"),
}
"""The order of the verbs in the help. Verbs without a group are listed last."""

DEBUG_VARIABLE = "REPLAY_DEBUG"
"""If this environment variable is 1, errors print their traceback."""

_SIGPIPE_EXIT = 141
_LESS_MEMORY = "stop other programs; a run needs less memory with a lower -c or -t"

_OS_ERRORS = {
    errno.ENOSPC: ("no space left on the disk", "free some space, or write to another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or write to another disk"),
    errno.EFBIG: ("a file would exceed the file size limit", "raise the limit: ulimit -f unlimited"),
    errno.EMFILE: ("too few file descriptors", "raise the limit: ulimit -n 65536"),
    errno.ENFILE: ("the system has no file descriptors left", "close other programs, or raise fs.file-max"),
    errno.EIO: ("input/output error", "check the disk, or the terminal that shows the output"),
    errno.ENOMEM: ("not enough memory", _LESS_MEMORY),
}

_FILE_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST),
    *(errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
}
"""OS errors about a file, for which the system's own message is clear enough."""


class _Verbs(click.Group):
    """The command group. It imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f".{VERBS[cmd_name][0]}", __package__).command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of verbs without importing their modules."""
        from click.shell_completion import CompletionItem

        if ctx.args or incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(verb, help=words)
            for verb, (_, words) in VERBS.items()
            if verb.startswith(incomplete)
        ]

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb, and exit with _SIGPIPE_EXIT after a closed pipe.

        click would exit with 1, which is the code of a crash.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise SystemExit(_os_error(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {verb for verbs in GROUPS.values() for verb in verbs}
        groups = {**GROUPS, "Other": tuple(verb for verb in VERBS if verb not in listed)}
        widest = max(map(len, VERBS))
        for group, verbs in groups.items():
            if lines := [(verb.ljust(widest), VERBS[verb][1]) for verb in verbs if verb in VERBS]:
                with formatter.section(group):
                    formatter.write_dl(lines)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from replay.units import nearest

            guess = nearest(args[0], VERBS)
            meant = f" (did you mean {guess}?)" if guess else ""
            raise click.UsageError(f"there is no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, invoke_without_command=True, context_settings=context_settings())
@click.version_option(__version__, prog_name="replay")
@click.pass_context
def replay(context: click.Context) -> None:
    """Replay recorded traffic with its recorded timing, and report the latency that users would see.

    \b
    replay run access.log --target http://127.0.0.1:8080
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _crash(error: BaseException) -> int:
    """Report an unexpected error and the log file with its details, and return the exit code."""
    lines = [
        f"replay {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
        f"command: {sys.argv[1] if len(sys.argv) > 1 else ''}\n\n",
        *traceback.format_exception(error),
    ]
    where = ""
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(
            prefix=time.strftime("replay-crash-%Y%m%d-%H%M%S-"), suffix=".log"
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(lines)
        where = f"; the details are in {name}"
    summary = str(error).partition("\n")[0]
    say(f"crashed: {type(error).__name__}{': ' if summary else ''}{summary}{where}")
    return Exit.CRASHED


def _leaf(error: BaseException) -> BaseException:
    """Return the exception of a group to report: the first ReplayError, or else the first exception."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_leaf(part) for part in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, ReplayError)), leaves[0])


def _nowhere() -> bool:
    """Return whether the working directory was deleted.

    The path `.` still resolves then, but nothing can be created in it.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _os_error(error: OSError) -> int:
    """Report an OSError that no other code has turned into a ReplayError, and return the exit code.

    A closed pipe is not reported.
    """
    if isinstance(error, BrokenPipeError):
        streams.forget_stdout()
        return _SIGPIPE_EXIT
    known = _OS_ERRORS.get(error.errno or 0)
    place = f"{error.filename}: " if error.filename else ""
    if known is not None:
        say(f"{place}{known[0]}", known[1])
        return Exit.USAGE
    if error.filename and error.errno in _FILE_ERRORS:
        say(f"{place}{reason_of(error)}")
        return Exit.USAGE
    if isinstance(error, FileNotFoundError) and _nowhere():
        say("the working directory no longer exists", "change to another directory")
        return Exit.USAGE
    return _crash(error)


def _unknown_flag(error: click.ClickException) -> tuple[str, str] | None:
    """Return the message and the hint for an unknown flag; None for other errors.

    They suggest the nearest known flag, or explain why the verb has no `--cluster`.
    """
    if not isinstance(error, click.NoSuchOption):
        return None
    from replay.units import nearest

    from .cluster_options import REFUSED

    verb = (error.ctx.info_name or "") if error.ctx is not None else ""
    if error.option_name == "--cluster" and verb in REFUSED:
        return REFUSED[verb]
    parameters = error.ctx.command.params if error.ctx is not None else []
    known = [name for parameter in parameters for name in parameter.opts if name.startswith("--")]
    guess = nearest(error.option_name, known)
    message = f"there is no flag {error.option_name}" + (f" (did you mean {guess}?)" if guess else "")
    return message, _help_of(error)


def _help_of(error: click.ClickException) -> str:
    """Return the command line that prints the verb's help; empty if the error has no verb."""
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else ""


def _ended(error: BaseException) -> int:
    """Report in one line the error that ended the command, and return its exit code."""
    if isinstance(error, ReplayError):
        say(str(error), error.hint)
        return error.exit_code
    if isinstance(error, click.ClickException):
        say(*(_unknown_flag(error) or (error.format_message(), _help_of(error))))
        return Exit.USAGE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        interrupts.hush()
        say("interrupted")
        return Exit.INTERRUPTED
    if isinstance(error, OSError):
        return _os_error(error)
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        say(f"cannot write a name that is not UTF-8: {error.object}", "rename the file")
        return Exit.USAGE
    if isinstance(error, MemoryError):
        say("not enough memory", _LESS_MEMORY)
        return Exit.USAGE
    return _crash(error)


def _show_compiling(modules: list[str]) -> None:
    """Compile `modules` and other missing kernels, and show the progress. `hooks` calls this before compiling."""
    from replay.report.console import Console

    from .progress import compile_kernels

    compile_kernels(Console(stderr=True, highlight=False), modules)


def invoke(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code. With REPLAY_DEBUG=1 its errors are raised instead of reported."""
    Sending.began = False
    hooks.before_compiling(_show_compiling)
    try:
        code = replay.main(arguments, prog_name="replay", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else Exit.CRASHED
    except BaseException as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        return int(exit_code_now(_ended(_leaf(error))))
