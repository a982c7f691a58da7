"""Errors as one line, progress, files that appear whole."""
import time

import pytest

import cli


def exit_of(capsys, function):
    """Exit code and standard error of a program."""
    with pytest.raises(SystemExit) as caught:
        cli.run(function)
    return caught.value.code, capsys.readouterr().err


def test_a_failure_is_one_line(capsys):
    def fail():
        raise cli.Failure("two\nlines", "here", "do that", cli.USAGE)
    assert exit_of(capsys, fail) == (cli.USAGE, "error: two lines, here, do that\n")


def test_a_system_error_names_the_file(capsys, tmp_path):
    code, line = exit_of(capsys, (tmp_path / "none").read_text)
    assert code == cli.INPUT
    assert line.startswith(f"error: No such file or directory, {tmp_path / 'none'}, ")


def test_a_file_needs_its_folder(tmp_path):
    with pytest.raises(cli.Failure, match="folder of the output is missing"):
        with cli.complete_file(tmp_path / "none" / "file"):
            pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "parent" / "folder"
    with pytest.raises(ValueError, match="stop"):
        with cli.complete_folder(folder) as temporary:
            (temporary / "file").write_text("half")
            raise ValueError("stop")
    assert not list(folder.parent.iterdir())
    with cli.complete_folder(folder) as temporary:
        (temporary / "file").write_text("all")
        assert not folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert (folder / "file").read_text() == "all"


def test_progress_tells_rate_and_time_left_every_five_seconds(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = cli.Progress("read", 100, "lines")
    now = 104.0
    progress.update(10)
    assert capsys.readouterr().out == ""
    now = 110.0
    progress.update(20, ", note")
    progress.update(21)
    assert capsys.readouterr().out == "read: 20/100 lines, 2 lines/s, 40 s left, note\n"
