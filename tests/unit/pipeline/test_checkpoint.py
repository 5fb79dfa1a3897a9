"""Snapshots are whole or absent, and work goes on from them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator

import pytest
import torch

from distillhub.ops.progress import Progress, State, capture, restore
from distillhub.pipeline.checkpoint import (
    Checkpoint,
    Interrupted,
    StopRequest,
    WorkFolder,
    drive,
    load_tensors,
    save_tensors,
)
from distillhub.pipeline.reporting import Silent


class Notes(Silent):
    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def count_to(total: int, stop: StopRequest | None = None, at: int = -1):
    def work(state: State | None) -> Generator[Progress, None, int]:
        x = torch.zeros(1)
        for step in range(restore(state, x=x), total):
            x += step
            if step == at and stop is not None:
                stop.signal = signal.SIGTERM
            yield Progress(step + 1, total, {}, lambda step=step, x=x: capture(step + 1, x=x))
        return int(x)

    return work


def test_work_without_a_cut_returns_its_result(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a")

    assert (
        drive(count_to(10), label="w", checkpoint=checkpoint, reporter=Silent(), stop=StopRequest())
        == 45
    )


def test_work_goes_on_from_the_step_at_which_it_was_stopped(tmp_path):
    checkpoint, stop, notes = Checkpoint(tmp_path / "a"), StopRequest(), Notes()
    with pytest.raises(Interrupted, match="SIGTERM at step 5 of 10"):
        drive(count_to(10, stop, at=4), label="w", checkpoint=checkpoint, reporter=notes, stop=stop)

    result = drive(
        count_to(10), label="w", checkpoint=checkpoint, reporter=notes, stop=StopRequest()
    )

    assert result == 45
    assert notes.told == ["w: resumed at step 5"]


def test_a_damaged_snapshot_is_told_and_the_work_starts_again(tmp_path):
    checkpoint, notes = Checkpoint(tmp_path / "a"), Notes()
    checkpoint.path.write_bytes(b"not a snapshot")

    assert (
        drive(count_to(4), label="w", checkpoint=checkpoint, reporter=notes, stop=StopRequest())
        == 6
    )
    assert "cannot be read" in notes.told[0]


def test_a_snapshot_is_due_after_fifty_times_its_own_cost(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLHUB_SNAPSHOT_SECONDS", "0")
    checkpoint = Checkpoint(tmp_path / "a")
    checkpoint.save({"step": 1, "x": torch.zeros(3)})

    checkpoint._cost = 1000.0
    checkpoint._due = checkpoint._due + checkpoint._period()

    assert not checkpoint.due


def test_sigterm_asks_to_stop_instead_of_killing():
    with StopRequest().watched(parents=False) as stop:
        os.kill(os.getpid(), signal.SIGTERM)

    assert stop.signal == signal.SIGTERM


def test_a_stage_whose_builder_is_gone_is_asked_to_stop(monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setenv("DISTILLHUB_BUILDER_PID", str(gone.pid))

    with StopRequest().watched(parents=True) as stop:
        for _ in range(100):
            if stop.signal is not None:
                break
            time.sleep(0.05)

    assert stop.signal == signal.SIGTERM


def test_a_build_left_running_behind_a_closed_terminal_goes_on(tmp_path):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from distillhub.pipeline.checkpoint import StopRequest\n"
        "with StopRequest().watched(parents=False) as stop:\n"
        "    time.sleep(2)\n"
        "    Path(sys.argv[1]).write_text(str(stop.signal))\n"
    )
    child = [sys.executable, "-c", program, str(tmp_path / "end")]
    shell = f"import subprocess; subprocess.Popen({child!r})"
    subprocess.run([sys.executable, "-c", shell], check=True)

    deadline = time.monotonic() + 60
    while not (tmp_path / "end").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.1)

    assert (tmp_path / "end").read_text() == "None"


def test_tensors_and_their_record_come_back(tmp_path):
    save_tensors(tmp_path / "unit.done", {"images": torch.ones(2, 3)}, loss=0.5)

    tensors, record = load_tensors(tmp_path / "unit.done")

    assert tensors["images"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert record == {"loss": 0.5}


def test_a_work_folder_goes_when_its_stage_ends_well(tmp_path):
    work = WorkFolder(tmp_path, "models", "abc")
    with work.held(Silent()):
        (work.path / "piece").touch()

    assert not work.path.exists()


def test_a_work_folder_stays_when_its_stage_fails(tmp_path):
    work = WorkFolder(tmp_path, "models", "abc")

    def fail():
        with work.held(Silent()):
            work.log_elapsed(12.5)
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        fail()

    assert work.elapsed() == 12.5


def test_an_optimizer_with_momentum_comes_back_bit_for_bit():
    def setup():
        x = torch.ones(3, requires_grad=True)
        return x, torch.optim.AdamW([x], lr=0.1)

    def step(x, opt):
        opt.zero_grad()
        x.square().sum().backward()
        opt.step()

    x, opt = setup()
    for _ in range(3):
        step(x, opt)
    state = capture(3, x=x, opt=opt)
    step(x, opt)
    y, other = setup()
    restore(state, x=y, opt=other)
    step(y, other)

    assert torch.equal(x, y)
