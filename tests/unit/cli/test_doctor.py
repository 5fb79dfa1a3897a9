"""What doctor finds."""

import json

import pytest

from distillhub_cli import doctor


def test_it_finds_python_torch_device_memory_disk_and_dvc(run):
    topics = {finding["topic"] for finding in json.loads(run("doctor", "--json").stdout)}

    assert {"python", "packages", "device", "threads", "memory", "disk", "git", "dvc"} <= topics


def test_what_is_missing_comes_with_a_mend():
    assert [f for f in doctor.examine() if f.state == "bad" and not f.mend] == []


def test_a_missing_package_is_bad_and_ends_with_4(run, monkeypatch):
    monkeypatch.setattr(doctor, "TELLING", ("torch", "no-such-package"))

    result = run("doctor")

    assert result.exit_code == 4
    assert "pip install no-such-package" in result.stdout


def test_a_source_that_is_gone_is_bad(run, project):
    (project / "distillhub.toml").write_text('[sources]\n"org/name" = "gone"\n')

    findings = json.loads(run("doctor", "--json").stdout)

    assert [f["state"] for f in findings if f["topic"] == "sources"] == ["bad"]


def test_little_memory_is_noted(monkeypatch):
    monkeypatch.setattr(doctor.os, "sysconf", lambda name: 1000)

    (finding,) = doctor._memory()

    assert finding.state == "note"


@pytest.mark.parametrize("missing", ["git"])
def test_a_missing_tool_is_noted_with_the_way_around_it(monkeypatch, missing):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)

    findings = {f.topic: f for f in doctor._tools()}

    assert "--direct" in findings[missing].mend
