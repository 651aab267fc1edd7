"""The common format of stays: written, read back, checked, and made anew when stale."""

import json
from dataclasses import replace

from experiments.datasets import stays as stays_module
from experiments.datasets.stays import (
    DESCRIPTION,
    TENSORS,
    Channel,
    Description,
    Stays,
    cached_stays,
    read_stays,
    write_stays,
)
from experiments.errors import UserError

import pytest
import torch


def stays(source="first"):
    """Three stays of 3, 1 and 2 hours, one for each split."""
    torch.manual_seed(0)
    lengths = torch.tensor([3, 1, 2], dtype=torch.int32)
    behind = torch.arange(4) >= lengths[:, None]
    inputs = torch.randn(3, 4, 2).masked_fill(behind[..., None], 0)
    label = torch.randint(0, 5, (3, 4), dtype=torch.int16).masked_fill(behind, -1)
    return Stays(
        inputs=inputs,
        observed=inputs > 0,
        lengths=lengths,
        labels={"score_24": label, "score_6": label.clone()},
        outcomes={"death": torch.tensor([0.0, 1.0, torch.nan])},
        static=torch.tensor([[40.0], [torch.nan], [70.0]]),
        split=torch.tensor([0, 1, 2], dtype=torch.int8),
        description=Description(
            "Test", (Channel("HR", "1/min", 80.0, 12.5), Channel("Temp", "°C", 37.0, 0.5)), ("Age",), source, {"n": 3}
        ),
    )


def test_what_is_written_is_read(tmp_path):
    made = write_stays(tmp_path / "new", stays())
    read = read_stays(tmp_path / "new")
    assert read.description == made.description
    assert list(read.labels) == ["score_6", "score_24"]
    for name in ("inputs", "observed", "lengths", "static", "split"):
        torch.testing.assert_close(getattr(read, name), getattr(made, name), equal_nan=True)
    torch.testing.assert_close(read.labels["score_24"], made.labels["score_24"])
    torch.testing.assert_close(read.outcomes["death"], made.outcomes["death"], equal_nan=True)
    files = list((tmp_path / "new").iterdir())
    assert {path.name for path in files} == {TENSORS, DESCRIPTION}
    assert len({path.stat().st_mode for path in files}) == 1


def test_mask_and_parts():
    made = stays()
    assert made.mask.tolist() == [[True] * 3 + [False], [True] + [False] * 3, [True] * 2 + [False] * 2]
    validation = made.part("validation")
    assert len(validation) == 1
    torch.testing.assert_close(validation.inputs, made.inputs[1:2])
    torch.testing.assert_close(validation.labels["score_6"], made.labels["score_6"][1:2])
    assert len(made.first(2)) == 2
    assert len(made.first(None)) == 3


def test_stale_stays_are_made_anew(tmp_path):
    asked = []

    def prepare(source):
        asked.append(source)
        return stays(source)

    for source in ("first", "first", "second", "second", None):
        found = cached_stays(tmp_path, source, lambda source=source: prepare(source))
        assert found.description.source_checksum == (source or "second")
    assert asked == ["first", "second"]
    (tmp_path / DESCRIPTION).write_text("{")
    cached_stays(tmp_path, "second", lambda: prepare("second"))
    assert asked == ["first", "second", "second"]


def test_missing_stays(tmp_path):
    with pytest.raises(UserError, match="holds no prepared stays"):
        read_stays(tmp_path)


def test_damaged_files_are_named(tmp_path):
    write_stays(tmp_path, stays())
    content = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(content[:-1])
    with pytest.raises(UserError, match="is not the file that"):
        read_stays(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(UserError, match="cannot be used"):
        read_stays(tmp_path)
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    for broken in ({**description, "format": 2}, {**description, "channels": 3}, []):
        (tmp_path / DESCRIPTION).write_text(json.dumps(broken))
        with pytest.raises(UserError, match="cannot be used"):
            read_stays(tmp_path)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (UserError, "Temp is not finite", lambda s: s.inputs[0, 0, 1].fill_(torch.nan)),
        (UserError, "the test split of Test has no stays", lambda s: s.split.fill_(1)[0].fill_(0)),
        (ValueError, "lengths must lie in", lambda s: s.lengths[0].fill_(0)),
        (ValueError, "zero behind the end", lambda s: s.inputs[1, 3].fill_(1)),
        (ValueError, "zero behind the end", lambda s: s.observed[1, 3].fill_(True)),
        (ValueError, "it has no label.<name>", lambda s: s.labels.clear()),
        (ValueError, "labels must be -1", lambda s: s.labels["score_6"][1, 3].fill_(0)),
    ],
)
def test_wrong_stays_are_refused_and_leave_nothing(tmp_path, error, message, change):
    wrong = stays()
    change(wrong)
    with pytest.raises(error, match=message):
        write_stays(tmp_path, wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": torch.zeros(3, dtype=torch.int64)}, "split is torch.int64"),
        ({"static": torch.zeros(3, 2)}, "static is"),
        ({"outcomes": {"death": torch.zeros(2)}}, "outcome.death is"),
    ],
)
def test_wrong_types_and_shapes(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_stays(tmp_path, replace(stays(), **change))


def test_runs_that_prepare_the_same_stays_at_once_can_read_them_all_the_time(tmp_path, monkeypatch):
    first = write_stays(tmp_path, stays())
    write = stays_module.write_atomically

    def reading(*arguments):
        assert read_stays(tmp_path).description == first.description
        write(*arguments)

    monkeypatch.setattr(stays_module, "write_atomically", reading)
    assert write_stays(tmp_path, stays()).description == first.description
    assert read_stays(tmp_path).inputs.equal(first.inputs)


def test_a_full_disk_leaves_no_stays(tmp_path, monkeypatch):
    write_stays(tmp_path, stays())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("experiments.datasets.stays.write_atomically", full)
    with pytest.raises(UserError, match="No space left"):
        write_stays(tmp_path, stays("second"))
    with pytest.raises(UserError, match="holds no prepared stays"):
        read_stays(tmp_path)
