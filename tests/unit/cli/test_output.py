"""Lines, tables and progress."""

import io

import pytest

from distillhub_cli import output as module
from distillhub_cli.output import Output, Pace, PlainReporter, RichReporter, duration, quoted, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module.time, "monotonic", made.monotonic)
    return made


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7, "0:07"), (725, "12:05"), (3723, "1:02:03"), (86_400 * 2 + 3 * 3600, "2 d 3 h")],
)
def test_a_duration_reads_like_a_clock(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(812, "812 B"), (3_400, "3.4 kB"), (27_700_000, "27.7 MB"), (1.2e9, "1.2 GB")],
)
def test_a_size_has_a_unit_that_fits(count, text):
    assert size(count) == text


def test_the_time_left_counts_only_steps_of_this_process():
    pace = Pace(done=900, now=0.0)  # resumed at step 900

    assert pace.left(910, 1000, now=5.0) == pytest.approx(45.0)


def test_no_time_left_is_told_before_a_step_is_done():
    assert Pace(done=3, now=1.0).left(3, 10, now=2.0) is None


def test_plain_progress_speaks_now_and_then_and_at_the_end(clock):
    stream = io.StringIO()
    reporter = PlainReporter(stream, every=10)

    for step in range(1, 101):
        clock.now += 0.5
        reporter.progress("dm", step, 100, {"loss": 0.25})

    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "  dm: 21/100  loss 0.25  0:10  0:40 left"
    assert lines[-1] == "  dm: 100/100  loss 0.25  0:50"


def test_work_of_less_than_a_second_gives_no_line(clock):
    stream = io.StringIO()
    reporter = PlainReporter(stream)

    for step in range(1, 4):
        clock.now += 0.1
        reporter.progress("small", step, 3, {})

    assert stream.getvalue() == ""


def test_a_terminal_gets_bars(clock):
    stream = Terminal()

    with Output(stream, io.StringIO()).reporter() as reporter:
        reporter.stage("synthesize", "x")
        reporter.progress("dm", 1, 2, {"loss": 1.0})
        clock.now += 1
        reporter.progress("dm", 2, 2, {"loss": 1.0})

    assert isinstance(reporter, RichReporter)
    assert "2/2" in stream.getvalue()


def test_bars_are_closed_when_the_work_fails():
    stream, seen = Terminal(), []

    def fail() -> None:
        with Output(stream, io.StringIO()).reporter() as reporter:
            seen.append(reporter)
            reporter.progress("dm", 1, 2, {})
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()

    assert seen[0]._bars is None


def test_a_table_aligns_numbers_right_and_words_left():
    stream = io.StringIO()

    Output(stream, stream).table(("name", "n"), [("a", "5"), ("long", "12")])

    assert stream.getvalue() == "  name   n\n  a      5\n  long  12\n"


def test_square_brackets_of_a_user_are_printed_as_they_are():
    stream = Terminal()

    Output(stream, stream).table(("[bold]x", "y"), [("[red]a", "b")])

    assert "[red]a" in stream.getvalue()


def test_a_command_to_type_is_quoted_for_the_shell():
    assert quoted("distillhub", "show", "my set") == "distillhub show 'my set'"
