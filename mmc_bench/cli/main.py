"""The commands by name, and what becomes of errors: one sentence and an exit code."""

import errno
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from mmc_bench import __version__
from mmc_bench.cli.interrupts import EXIT_INTERRUPTED, leave_when_interrupted
from mmc_bench.cli.streams import accept_any_text, open_closed_streams, output_problem
from mmc_bench.errors import UserError, message_of, nearest
from mmc_bench.system.streams import drop_unwritable, sentence, tell

COMMANDS = {
    "run": "Run a suite: pretrain, fine-tune, score, connect; then print the table.",
    "score": "Score a checkpoint of your own.",
    "audit": "Say which cues a network picks up from your images, and what removes them.",
    "list": "List suites, datasets, backbones, methods or observers.",
    "plugins": "List plugins, with those that failed to load.",
    "status": "Show what of a suite is done, missing or failed.",
    "table": "Print the table of the results at hand.",
    "plot": "Draw the results at hand, or images of a dataset.",
    "leaderboard": "Take results into the leaderboard, check it, build its tables.",
    "connect": "Measure the paths between any two checkpoints.",
    "probe": "Say what became of the cue: removed, hidden, unlinked or kept.",
    "new": "Write a plugin project to start from.",
    "check": "Check that a plugin keeps its promises.",
    "lock": "Check that unchanged versions mean unchanged numbers.",
}

EXIT_FAILED, EXIT_INTERNAL, EXIT_USAGE = 1, 3, 4


@contextmanager
def _quiet_end() -> Iterator[None]:
    """End well when the reader of a pipe has gone, as ``| head`` does; click itself would exit with 1."""
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None


class _LazyGroup(click.Group):
    """Knows every command's name, and imports a command's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"mmc_bench.cli.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(f"unknown command {args[0]!r}: {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _quiet_end():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _quiet_end():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmc-bench")
def cli() -> None:
    """Measure how well a fine-tuning method removes a network's reliance on a spurious cue."""


def main() -> None:
    """Run the command line and exit: 0 done, 1 cells failed, 2 interrupted, 3 internal error, 4 usage, 5 nothing."""
    leave_when_interrupted()
    open_closed_streams()
    gc.set_threshold(100_000, 50, 100)  # plans and records by the hundred thousand hold no cycles to look for
    code = run_command_line()
    drop_unwritable()  # Python itself would complain of it at exit
    sys.exit(code)


def run_command_line() -> int:
    """Run what ``sys.argv`` says and return the exit code; an error becomes one sentence on stderr."""
    accept_any_text()
    try:
        code = cli.main(standalone_mode=False, prog_name="mmc-bench")
        sys.stdout.flush()
        return code or 0
    except UserError as error:
        tell(f"mmc-bench: {sentence(error)}")
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        tell(error.format_message())
        return EXIT_USAGE
    except click.ClickException as error:
        tell(f"mmc-bench: {sentence(error.format_message())}")
        return EXIT_USAGE
    except (KeyboardInterrupt, click.Abort):
        tell("mmc-bench: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # from asking whether it is there
            tell(f"mmc-bench: {sentence(f'{error.filename}: {error.strerror}')}")
            return EXIT_USAGE
        if _is_out_of_memory(error):
            tell(f"mmc-bench: {sentence(f'out of memory ({message_of(error)[:200] or type(error).__name__})')}")
            return EXIT_FAILED
        if problem := output_problem(error):
            tell(f"mmc-bench: the output cannot be written ({problem})")
        else:
            import traceback

            tell(traceback.format_exc() + "mmc-bench: internal error; please report it with the lines above")
        return EXIT_INTERNAL


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from mmc_bench.training.memory import is_out_of_memory

    return is_out_of_memory(error)
