"""What a person sees of a stage: its lines, progress bars, tables and errors."""

from core import interrupts  # first: Ctrl-C while the others are imported prints one line too

# isort: split

import functools
import os
import sys

from tqdm import tqdm


class UserError(Exception):
    """Something that the user can mend: one line that says what is wrong and what would be right; a
    line for each argument."""


class NotApplicable(UserError):
    """What is asked for cannot be made of these data and models, whatever the options."""


def stage(main):
    """Decorate a stage's `main(argv=None)`, which returns its exit status or None for 0: a
    `UserError` becomes one line on stderr (or one for each of its arguments) and exit status 2."""

    @functools.wraps(main)
    def run(argv=None) -> int:
        try:
            with interrupts.raised():
                status = main(argv)
        except BaseException as error:
            return _status_of(error)
        return status or 0

    return run


def _status_of(error: BaseException) -> int:
    """The exit status of a stage that this has ended, of which one line is printed. Raises what is
    not expected."""
    if isinstance(error, KeyboardInterrupt) or interrupts.struck():
        interrupts.say_interrupted()
        return interrupts.STATUS
    if isinstance(error, UserError):
        for line in error.args:
            print("error: " + " ".join(str(line).split()), file=sys.stderr)
        return 2
    if isinstance(error, MemoryError):
        print("error: the memory is too small: try fewer --workers", file=sys.stderr)
        return 2
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported here
        print(
            "error: the GPU's memory is too small: try a smaller --batch_size or fewer --workers, "
            "or the cpu",
            file=sys.stderr,
        )
        return 2
    if isinstance(error, BrokenPipeError):  # whoever read the output has gone, as `| head` does
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # so that the exit doesn't fail again
        return 141
    raise error


def say(line: str) -> None:
    """Print `line` above any progress bar that is on the screen."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def progress(*, total: int, label: str, unit: str = "epoch") -> tqdm:
    """A progress bar on stderr; silent where stderr is not a terminal, so that logs stay
    readable."""
    return tqdm(
        total=total, desc=f"{label:<18}", unit=unit, leave=False, disable=None, dynamic_ncols=True
    )


def epoch_bar(epochs: int, label: str):
    """Open a progress bar for a training; returns what is called after each epoch (number,
    accuracy on dev) and what is called at the end."""
    bar = progress(total=epochs, label=label)

    def on_epoch(epoch: int, accuracy: float | None) -> None:
        if accuracy is not None:
            bar.set_postfix_str(f"dev {percent(accuracy)} %", refresh=False)
        bar.update()

    return on_epoch, bar.close


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def duration(seconds: float) -> str:
    """About how long, in the unit that fits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a small table: first column to the left, all others to the right."""
    columns = list(zip(header, *rows))
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(cells):
        first, *rest = (
            f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(cells)
        )
        return "  ".join([first, *rest]).rstrip()

    say(
        "\n".join(
            ["", title, line(header), line(["-" * width for width in widths]), *map(line, rows)]
        )
    )
