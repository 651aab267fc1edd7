"""Means over seeds of runs that no table asks for."""

import json
import statistics

from scripts import summarise

import pytest


@pytest.fixture
def write(tmp_path):
    def write_run(number, seed, purity, alpha=10.0, **changes):
        """A run folder with the record of a finished run; returns its path."""
        folder = tmp_path / "runs" / "dpsom" / str(number)
        folder.mkdir(parents=True)
        record = {
            "format": 1,
            "experiment": "dpsom",
            "config_name": None,
            "seed": seed,
            "status": "COMPLETED",
            "config": {"seed": seed, "resume": None, "model": {"alpha": alpha}, "tracking": {"runs_dir": "runs"}},
            "metrics": {"validation/purity": purity, "test/purity": purity / 2, "test/topographic_error": None},
            "curve": [],
            "seconds": {"joint": 3.0},
            "git_commit": "abc",
            "git_dirty": False,
            "versions": {},
            "hardware": {},
            "data_checksum": "123",
        }
        (folder / "record.json").write_text(json.dumps(record | changes))
        (folder / "run.json").write_text('{"status": "COMPLETED"}')
        return str(folder)

    return write_run


def test_runs_that_differ_in_the_seed_alone_have_a_mean_and_a_standard_error(write, capsys):
    values = [0.5, 0.6, 0.75]
    assert summarise.main([write(number, number, value) for number, value in enumerate(values)]) == 0
    heading, splits, purity, *others = capsys.readouterr().out.splitlines()
    assert heading == "dpsom, n = 3 (seeds 0, 1, 2)"
    assert splits.split() == ["validation", "test"]
    mean, error = statistics.mean(values), statistics.stdev(values) / 3**0.5
    expected = [f"{mean:.4f} ± {error:.4f}", f"{mean / 2:.4f} ± {error / 2:.4f}"]
    assert purity.split() == ["purity", *" ".join(expected).replace("0.", ".").split()]
    assert not others


def test_a_mean_of_fewer_runs_says_of_how_many(write, capsys):
    lacking = {"metrics": {"validation/purity": 0.5, "test/purity": None}}
    assert summarise.main([write(0, 0, 0.4), write(1, 1, 0.8), write(2, 2, 0.6, **lacking)]) == 0
    _, _, purity = capsys.readouterr().out.splitlines()
    assert purity.endswith(".3000 ± .1000, n = 2")
    assert purity.count("n =") == 1


def test_other_settings_other_data_and_other_experiments_are_groups_of_their_own(write, capsys):
    runs = [
        write(1, 0, 0.5),
        write(2, 0, 0.6, alpha=3.0),
        write(3, 1, 0.7),
        write(4, 0, 0.8, data_checksum="456"),
        write(5, 0, 0.9, experiment="somvae"),
    ]
    assert summarise.main(runs) == 0
    assert [text.splitlines()[0] for text in capsys.readouterr().out.split("\n\n")] == [
        "dpsom, n = 2 (seeds 0, 1)",
        "dpsom, n = 1 (seed 0), model.alpha: 10.0 → 3.0",
        "dpsom, n = 1 (seed 0), other data",
        "somvae, n = 1 (seed 0), dpsom → somvae",
    ]


def test_mistakes_are_one_line(write, tmp_path, capsys):
    first, again = write(1, 0, 0.5), write(2, 0, 0.6)
    for arguments, message in (
        ([first, again], f"{first} and {again} are the same run, seed 0: leave out one"),
        ([first, str(tmp_path)], f"{tmp_path} is no run folder: give one such as runs/dpsom/7"),
    ):
        assert summarise.main(arguments) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {message}")
