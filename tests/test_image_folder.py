"""Pictures of one's own: what is read, when it is read anew, and what a user is told about folders that are wrong."""

from experiments.datasets import image_folder
from experiments.datasets.image_folder import CACHE_NAME, read_pictures
from experiments.errors import UserError
from experiments.ingredients.data import load_dataset

import numpy as np
import pytest
import torch
from PIL import Image


def write(folder, name, count, mode="RGB", size=(6, 4), kind="png"):
    """`count` random pictures of one class; returns their values [count, H, W(, 3)]."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    shape = (count, size[1], size[0], *([3] if mode == "RGB" else []))
    values = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    for number, picture in enumerate(values):
        Image.fromarray(picture).save(folder / name / f"{number:03}.{kind}")
    return values


def load(folder):
    return load_dataset("image_folder", str(folder), "unit", 0.25, None, None)


def user_error(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_train_and_test_folders(tmp_path):
    cats, dogs = write(tmp_path / "train", "cat", 6), write(tmp_path / "train", "dog", 10)
    write(tmp_path / "test", "cat", 2)
    test_dogs = write(tmp_path / "test", "dog", 3)
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [12, 4, 5]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1, 1]
    expected = torch.from_numpy(test_dogs).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(dataset.test.inputs[2:], expected)
    training = torch.cat([dataset.train.inputs, dataset.validation.inputs])
    everything = torch.from_numpy(np.concatenate([cats, dogs])).permute(0, 3, 1, 2) / 255
    assert sorted(training.sum(dim=(1, 2, 3)).tolist()) == pytest.approx(sorted(everything.sum(dim=(1, 2, 3)).tolist()))


@pytest.mark.parametrize("folders", [("Train", "Test"), ("train", "val"), ("test",), ("cat", "validation")])
def test_folders_of_splits_are_no_classes_and_none_is_ignored(tmp_path, folders):
    for folder in folders:
        write(tmp_path / folder, "cat", 6)
    message = user_error(load, tmp_path)
    assert "call the folders of splits train and test" in message
    assert any(f"has the folder {folder}:" in message for folder in folders)


def test_a_single_picture_is_no_data_set(tmp_path):
    write(tmp_path, "cat", 1)
    assert "holds a single picture" in user_error(load, tmp_path)


def test_a_part_of_a_test_folder_shows_all_classes(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            write(tmp_path / part, name, 30)
    limited = load_dataset("image_folder", str(tmp_path), "unit", 0.25, None, 20)
    for split in (limited.train, limited.validation, limited.test):
        assert set(split.labels.tolist()) == {0, 1}
    whole = load_dataset("image_folder", str(tmp_path), "unit", 0.25, None, 60)
    assert torch.equal(whole.test.inputs, load(tmp_path).test.inputs)
    assert "ordered by class: give a fraction" in user_error(
        load_dataset, "image_folder", str(tmp_path), "unit", None, None, None
    )


def test_without_a_test_folder_a_fixed_fifth_is_held_out(tmp_path):
    write(tmp_path, "a", 20, mode="L")
    write(tmp_path, "b", 20, mode="L")
    dataset = load(tmp_path)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [24, 8, 8]
    assert dataset.train.inputs.shape[1:] == (1, 4, 6)
    assert torch.equal(load(tmp_path).test.inputs, dataset.test.inputs)


def test_pictures_are_read_once_and_again_when_one_has_changed(tmp_path, monkeypatch):
    write(tmp_path, "a", 3)
    first = read_pictures(tmp_path)
    assert (tmp_path / CACHE_NAME).exists()
    opened, original = [], image_folder.open_picture
    monkeypatch.setattr(image_folder, "open_picture", lambda path: opened.append(path) or original(path))
    np.testing.assert_array_equal(read_pictures(tmp_path).inputs, first.inputs)
    assert opened == []
    write(tmp_path, "b", 2)
    assert read_pictures(tmp_path).labels.tolist() == [0, 0, 0, 1, 1]
    assert opened
    for damage in (b"PK damaged", b""):
        (tmp_path / CACHE_NAME).write_bytes(damage)
        assert len(read_pictures(tmp_path).inputs) == 5


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    write(tmp_path, "a", 3)
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(PermissionError("read-only")))
    assert len(read_pictures(tmp_path).inputs) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_no_folder_no_classes_and_an_empty_class(tmp_path):
    missing = user_error(load, tmp_path / "nowhere")
    assert "is no image folder (it does not exist; a relative data.root starts at the project's folder): " in missing
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "loose.png")
    assert "is no image folder (Couldn't find any class folder" in user_error(load, tmp_path)
    (tmp_path / "empty").mkdir()
    assert "Found no valid file for the classes empty" in user_error(load, tmp_path)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"size": (5, 4)}, "is 5 x 4 pixels in RGB, but"),
        ({"mode": "L"}, "is 6 x 4 pixels in grey, but"),
    ],
)
def test_mixed_sizes_and_modes(tmp_path, odd, message):
    write(tmp_path, "a", 2)
    write(tmp_path, "b", 1, **odd)
    error = user_error(load, tmp_path)
    assert message in error
    assert "b/000.png" in error
    assert "pictures of one size, all grey or all RGB" in error
    assert not (tmp_path / CACHE_NAME).exists()


def test_a_mode_that_is_neither_grey_nor_rgb(tmp_path):
    write(tmp_path, "a", 1)
    Image.fromarray(np.zeros((4, 6, 4), np.uint8), "RGBA").save(tmp_path / "a" / "transparent.png")
    assert "transparent.png is in mode RGBA: convert it" in user_error(load, tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_corrupt_picture(tmp_path, kind):
    write(tmp_path, "a", 2, size=(40, 40), kind=kind)
    whole = (tmp_path / "a" / f"001.{kind}").read_bytes()
    for damaged in (b"no picture", whole[: len(whole) // 2]):
        (tmp_path / "a" / f"001.{kind}").write_bytes(damaged)
        message = user_error(load, tmp_path)
        assert f"001.{kind} cannot be read as a picture (" in message
        assert message.endswith("): replace or delete it")


def test_a_link_to_nothing_and_a_picture_that_would_fill_the_memory(tmp_path, monkeypatch):
    write(tmp_path, "a", 2)
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "gone.png")
    assert "link.png cannot be read as a picture (" in user_error(load, tmp_path)
    (tmp_path / "a" / "link.png").unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert "cannot be read as a picture (Image size" in user_error(load, tmp_path)


def test_an_interruption_leaves_no_half_of_the_kept_pictures(tmp_path, monkeypatch):
    write(tmp_path, "a", 3)

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_pictures(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_training_and_test_set_must_be_alike(tmp_path):
    write(tmp_path / "train", "a", 6)
    write(tmp_path / "train", "b", 6)
    write(tmp_path / "test", "a", 2)
    assert "differ in their classes or in the size or mode" in user_error(load, tmp_path)
