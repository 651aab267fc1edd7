"""The data ingredient: splits, scaling, checksums, and what a user is told about files that are wrong."""

import gzip
import hashlib
import shutil
import socket
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from experiments import PROJECT
from experiments.configuration import check_config
from experiments.datasets import original_files
from experiments.datasets.readers import READERS, RawDataset
from experiments.datasets.splits import split_indices
from experiments.datasets.torchvision_datasets import import_torchvision_datasets
from experiments.errors import UserError
from experiments.ingredients import data as data_module
from experiments.ingredients.data import data, load_dataset, resize, scale_

import numpy as np
import pytest
import torch
from sacred import Experiment
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

TRAIN_SIZE, TEST_SIZE, SIDE = 40, 12, 6
FILE_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name="digits", **changes):
    values = {
        "root": "data",
        "scaling": "per_image_max",
        "validation_fraction": 0.15,
        "image_size": None,
        "limit": None,
    }
    return load_dataset(name, **(values | changes))


def idx_bytes(array):
    """The IDX format of MNIST: magic number (8 = unsigned byte, then the rank), sizes in big-endian order, values."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A four-file data set that torchvision takes for MNIST, below `root`; a download would be refused at once."""
    random = np.random.default_rng(0)
    arrays = [
        random.integers(0, 200, (TRAIN_SIZE, SIDE, SIDE), dtype=np.uint8),
        np.arange(TRAIN_SIZE, dtype=np.uint8) % 10,
        random.integers(0, 200, (TEST_SIZE, SIDE, SIDE), dtype=np.uint8),
        np.arange(TEST_SIZE, dtype=np.uint8) % 10,
    ]
    root = tmp_path / "root"
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for file_name, array in zip(FILE_NAMES, arrays, strict=True):
        content = gzip.compress(idx_bytes(array), mtime=0)
        (folder / file_name).write_bytes(content)
        resources.append((file_name, hashlib.md5(content).hexdigest()))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed_port = unused.getsockname()[1]
    mnist = import_torchvision_datasets().MNIST
    monkeypatch.setattr(mnist, "resources", resources)
    monkeypatch.setattr(mnist, "mirrors", [f"http://127.0.0.1:{closed_port}/"])
    monkeypatch.setenv("no_proxy", "*")
    return root, folder, arrays


@pytest.fixture
def mirror(tmp_path, tiny_mnist, monkeypatch):
    """Moves the tiny MNIST away from `root` to a web server; returns the server's folder and the list of requests."""
    _, folder, _ = tiny_mnist
    served = tmp_path / "served"
    shutil.move(folder, served)
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setattr(import_torchvision_datasets().MNIST, "mirrors", [address])
    yield served, requests
    server.shutdown()
    server.server_close()
    thread.join()


def user_error(**arguments):
    """The message of the UserError that loading raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        load(**arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Splits


def test_without_a_fraction_the_last_sixth_is_held_out_in_order(tiny_mnist):
    root, _, (images, labels, *_) = tiny_mnist
    dataset = load("mnist", root=str(root), scaling="unit", validation_fraction=None)
    first, last = 3, 33  # of 40
    for split, rows in ((dataset.train, slice(first, last)), (dataset.validation, slice(last, None))):
        assert split.labels.tolist() == labels[rows].tolist()
        np.testing.assert_allclose(split.inputs[:, 0] * 255, images[rows], rtol=1e-6)
    train, validation = split_indices(60_000, None)  # MNIST, as SOM-VAE's code has it
    assert (train[0], train[-1], validation[0], validation[-1]) == (5_000, 49_999, 50_000, 59_999)


def test_training_and_validation_equal_the_originals_split(tiny_mnist):
    root, _, (images, labels, test_images, test_labels) = tiny_mnist
    dataset = load("mnist", root=str(root), scaling="unit", validation_fraction=0.25)
    train, validation, train_labels, validation_labels = train_test_split(
        images, labels, test_size=0.25, random_state=42
    )
    for split, expected, expected_labels in (
        (dataset.train, train, train_labels),
        (dataset.validation, validation, validation_labels),
        (dataset.test, test_images, test_labels),
    ):
        assert len(split) == len(expected)
        assert split.inputs.dtype == torch.float32
        assert split.labels.dtype == torch.int64
        np.testing.assert_array_equal(split.inputs.numpy(), expected[:, None].astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(split.labels.numpy(), expected_labels)


def test_digits_test_set_is_a_fixed_fifth_split_off_first():
    digits = load_digits()
    rest, test = train_test_split(np.arange(1797), test_size=0.2, random_state=42)
    train, validation = train_test_split(rest, test_size=0.15, random_state=42)
    assert (len(train), len(validation), len(test)) == (1221, 216, 360)
    dataset = load("digits", scaling="unit")
    for split, indices in ((dataset.train, train), (dataset.validation, validation), (dataset.test, test)):
        np.testing.assert_array_equal(split.inputs.numpy()[:, 0] * 16, digits.images[indices])
        np.testing.assert_array_equal(split.labels.numpy(), digits.target[indices])
    assert len(load("digits", validation_fraction=0.5).test) == 360


def test_the_square_is_filled_evenly_and_its_classes_are_quadrants():
    dataset = load("square", scaling="unit")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [1700, 300, 500]
    points = dataset.train.inputs.flatten(1)
    assert points.shape == (1700, 2)
    cells = (points * 4).long() @ torch.tensor([4, 1])
    assert (cells.bincount(minlength=16) - 1700 / 16).abs().max() < 40  # four standard deviations
    first, second = points.t() > 0.5
    assert torch.equal(dataset.train.labels, first + 2 * second)
    assert dataset.checksum == load("square", scaling="unit").checksum


def test_splits_are_disjoint_and_complete(monkeypatch):
    size = 100
    numbered = torch.arange(size, dtype=torch.float32).view(size, 1, 1, 1)

    def read(root):
        return RawDataset(numbered[:80], torch.zeros(80), numbered[80:], torch.zeros(20), ("a",), 1.0)

    monkeypatch.setitem(READERS, "numbered", read)
    dataset = load("numbered", scaling="unit")
    together = torch.cat([dataset.train.inputs, dataset.validation.inputs, dataset.test.inputs]).flatten()
    assert together.sort().values.tolist() == numbered.flatten().tolist()


def test_limit_takes_the_first_samples_of_each_split():
    whole, limited = load(), load(limit=250)
    for split, whole_split in (
        (limited.train, whole.train),
        (limited.validation, whole.validation),
        (limited.test, whole.test),
    ):
        assert len(split) == min(250, len(whole_split))
        assert torch.equal(split.inputs, whole_split.inputs[:250])
        assert torch.equal(split.labels, whole_split.labels[:250])
    assert limited.checksum == whole.checksum


# Scaling and size


def test_per_image_max_equals_the_originals_float64_division_bit_for_bit():
    value, largest = np.meshgrid(np.arange(256), np.arange(1, 256))
    pairs = np.stack([np.minimum(value, largest), largest], -1).reshape(-1, 1, 1, 2)
    expected = (pairs / pairs.max(axis=(1, 2, 3), keepdims=True)).astype(np.float32)
    scaled = scale_(torch.from_numpy(pairs).float(), "per_image_max", 255.0)
    np.testing.assert_array_equal(scaled.numpy(), expected)


def test_an_empty_image_stays_empty():
    assert torch.equal(scale_(torch.zeros(2, 1, 3, 3), "per_image_max", 255.0), torch.zeros(2, 1, 3, 3))


def test_scalings_reach_what_they_promise(tiny_mnist):
    root, _, (images, *_) = tiny_mnist
    by_image = load("mnist", root=str(root), scaling="per_image_max", image_size=9).train.inputs
    assert torch.equal(by_image.flatten(1).amax(1), torch.ones(len(by_image)))
    by_format = load("mnist", root=str(root), scaling="unit").train.inputs
    assert by_format.max() <= images.max() / 255 < 0.8
    assert load("digits", scaling="unit").train.inputs.max() == 1


def test_image_size_upsamples_bilinearly(tiny_mnist):
    root, _, _ = tiny_mnist
    own = load("mnist", root=str(root), scaling="unit").test.inputs
    larger = load("mnist", root=str(root), scaling="unit", image_size=2 * SIDE).test.inputs
    assert larger.shape == (TEST_SIZE, 1, 2 * SIDE, 2 * SIDE)
    # Pixel centres of the doubled image lie a quarter of a pixel beside the old ones.
    between = 0.75 * own[:, :, :, :-1] + 0.25 * own[:, :, :, 1:]
    between = 0.75 * between[:, :, :-1] + 0.25 * between[:, :, 1:]
    torch.testing.assert_close(larger[:, :, 1:-1:2, 1:-1:2], between)
    torch.testing.assert_close(larger[:, :, 0, 0], own[:, :, 0, 0])
    assert torch.equal(load("mnist", root=str(root), scaling="unit", image_size=SIDE).test.inputs, own)


def test_downsizing_uses_every_pixel():
    one_bright_pixel_each = torch.eye(256).view(256, 1, 16, 16)
    assert (resize(one_bright_pixel_each, 4).sum((1, 2, 3)) > 0).all()


# Checksum, classes, devices, Sacred


def test_checksum_of_digits_is_the_same_on_every_machine():
    expected = "8f0aca4bc18090f999b23b5e4d5759fbdd1ffc796966b33f803b567c1e5c8cd0"
    assert load().checksum == expected
    assert load(scaling="unit", image_size=16, validation_fraction=0.3).checksum == expected


def test_checksum_notices_one_changed_value_and_the_byte_order_does_not_matter():
    def checksum(labels):
        images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
        return RawDataset(images, labels, images, labels, (), 1.0).checksum()

    labels = torch.tensor([0, 1, 2])
    expected = hashlib.sha256()
    for _ in range(2):
        expected.update(b"|u1(3, 1, 2, 2)" + bytes(12))
        expected.update(b"<i8(3,)" + b"".join(label.to_bytes(8, "little") for label in (0, 1, 2)))
    assert checksum(labels) == expected.hexdigest()
    assert checksum(torch.tensor([0, 1, 3])) != checksum(labels)


def test_classes_are_short_names():
    assert load().classes == tuple("0123456789")


def test_class_names_of_mnist_are_digits(tiny_mnist):
    root, _, _ = tiny_mnist
    assert load("mnist", root=str(root)).classes == tuple("0123456789")


def test_to_moves_every_tensor():
    moved = load(limit=2).to("meta")
    for split in (moved.train, moved.validation, moved.test):
        assert split.inputs.device.type == split.labels.device.type == "meta"
    assert moved.name == "digits"


def test_sacred_fills_in_the_config():
    experiment = Experiment("data_test", ingredients=[data], save_git_info=False)

    @experiment.main
    def main():
        dataset = load_dataset()
        return [len(dataset.train), len(dataset.validation), len(dataset.test), *dataset.train.inputs.shape[2:]]

    assert experiment.run().result == [1221, 216, 360, 8, 8]
    run = experiment.run(config_updates={"data": {"limit": 7, "image_size": 12}})
    assert run.result == [7, 7, 7, 12, 12]


# Files


def test_root_is_relative_to_the_project_not_to_the_working_folder(tiny_mnist, tmp_path, monkeypatch):
    root, _, _ = tiny_mnist
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_module, "PROJECT", root.parent)
    assert len(load("mnist", root="root").test) == TEST_SIZE
    assert str(root.parent / "elsewhere" / "MNIST" / "raw") in user_error(name="mnist", root="elsewhere")


def test_project_folder_is_the_repository():
    assert (PROJECT / "pyproject.toml").is_file()


def test_unpacked_copies_are_neither_trusted_nor_made(tiny_mnist):
    root, folder, (_, _, test_images, _) = tiny_mnist
    folder.joinpath("t10k-images-idx3-ubyte").write_bytes(b"left behind by an interrupted program")
    before = sorted(folder.iterdir())
    dataset = load("mnist", root=str(root), scaling="unit")
    torch.testing.assert_close(dataset.test.inputs[:, 0] * 255, torch.from_numpy(test_images).float())
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("file_name", FILE_NAMES)
@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit"])
def test_a_damaged_file_is_named_and_left_alone(tiny_mnist, file_name, damage):
    root, folder, _ = tiny_mnist
    path = folder / file_name
    content = path.read_bytes()
    damaged = {
        "truncated": content[:-5],
        "empty": b"",
        "one bit": content[:20] + bytes([content[20] ^ 1]) + content[21:],
    }[damage]
    path.write_bytes(damaged)
    message = user_error(name="mnist", root=str(root))
    assert message.startswith(f"{path} is not the original file")
    assert hashlib.md5(content).hexdigest() in message
    assert "delete it" in message
    assert path.read_bytes() == damaged


def test_an_unreadable_file_is_named(tiny_mnist, monkeypatch):
    root, folder, _ = tiny_mnist
    path = folder / FILE_NAMES[2]

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(import_torchvision_datasets().utils, "check_md5", refuse)
        message = user_error(name="mnist", root=str(root))
    assert message.startswith(f"cannot read or write {folder / FILE_NAMES[0]} (PermissionError")
    path.unlink()
    path.mkdir()
    assert str(path) in user_error(name="mnist", root=str(root))


def test_a_missing_temporary_folder_is_named(tiny_mnist, tmp_path, monkeypatch):
    root, folder, _ = tiny_mnist
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    message = user_error(name="mnist", root=str(root))
    assert message.startswith(f"cannot unpack the files of {folder} into {tmp_path / 'gone'} (FileNotFoundError")


def test_refused_download_names_the_folder_and_the_four_files(tiny_mnist):
    root, folder, _ = tiny_mnist
    missing = folder / FILE_NAMES[1]
    missing.unlink()
    message = user_error(name="mnist", root=str(root))
    assert message.startswith(f"{missing} is missing and could not be downloaded (URLError")
    assert all(file_name in message for file_name in FILE_NAMES)
    assert message.endswith(f"into {folder}")
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(FILE_NAMES) - {FILE_NAMES[1]})


def test_a_root_that_cannot_be_written_is_named(tiny_mnist, tmp_path):
    blocking_file = tmp_path / "file"
    blocking_file.touch()
    message = user_error(name="mnist", root=str(blocking_file))
    assert message.startswith(f"cannot read or write {blocking_file / 'MNIST' / 'raw' / FILE_NAMES[0]}")


def test_missing_files_are_downloaded_once(tiny_mnist, mirror):
    root, folder, (_, _, test_images, _) = tiny_mnist
    _, requests = mirror
    dataset = load("mnist", root=str(root), scaling="unit")
    torch.testing.assert_close(dataset.test.inputs[:, 0] * 255, torch.from_numpy(test_images).float())
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILE_NAMES)
    assert set(requests) == {f"/{file_name}" for file_name in FILE_NAMES}
    requests.clear()
    assert load("mnist", root=str(root)).checksum == dataset.checksum
    assert not requests


def test_only_the_missing_file_is_downloaded_and_the_next_mirror_is_tried(tiny_mnist, mirror, monkeypatch):
    root, folder, _ = tiny_mnist
    served, requests = mirror
    folder.mkdir()
    for file_name in FILE_NAMES[1:]:
        shutil.copy(served / file_name, folder)
    mnist = import_torchvision_datasets().MNIST
    monkeypatch.setattr(mnist, "mirrors", [f"{mnist.mirrors[0]}no-such-folder/", *mnist.mirrors])
    assert len(load("mnist", root=str(root)).test) == TEST_SIZE
    assert set(requests) == {f"/no-such-folder/{FILE_NAMES[0]}", f"/{FILE_NAMES[0]}"}


def test_a_wrong_download_leaves_nothing_behind(tiny_mnist, mirror):
    root, folder, _ = tiny_mnist
    served, _ = mirror
    (served / FILE_NAMES[0]).write_bytes(b"<html>Please sign in to this network</html>")
    assert "could not be downloaded" in user_error(name="mnist", root=str(root))
    assert list(folder.iterdir()) == []


def test_a_silent_server_does_not_hang_the_run(tiny_mnist, monkeypatch):
    root, folder, _ = tiny_mnist
    (folder / FILE_NAMES[0]).unlink()
    monkeypatch.setattr(original_files, "DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(import_torchvision_datasets().MNIST, "mirrors", [address])
        assert "timed out" in user_error(name="mnist", root=str(root))
    assert socket.getdefaulttimeout() is None


# Config values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "mnits"),
        ("name", None),
        ("scaling", "max"),
        ("root", ""),
        ("validation_fraction", -0.1),
        ("validation_fraction", 1),
        ("validation_fraction", 1.5),
        ("validation_fraction", float("nan")),
        *((key, value) for key in ("limit", "image_size") for value in (0, -3, 2.5, "10", True)),
    ],
)
def test_impossible_values_are_refused(key, value):
    defaults = {"data": data.configurations[0]()}
    check_config(defaults, defaults, data.rules)
    with pytest.raises(UserError, match=f"data.{key}"):
        check_config({"data": {**defaults["data"], key: value}}, defaults, data.rules)


@pytest.mark.parametrize("fraction", [0.0, 0.99999, 1.0])
def test_a_split_that_leaves_nothing_is_refused(fraction):
    assert (
        user_error(validation_fraction=fraction)
        == f"data.validation_fraction is {fraction}: digits is too small for it"
    )


# The real data sets, where they have been downloaded


@pytest.mark.parametrize(
    ("name", "class_name", "checksum", "per_class"),
    [
        (
            "mnist",
            "MNIST",
            "11de40ec28a7c150195b86fd3a818037e73f1e8d04ab1621d02836dbdf8a2d54",
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        ),
        (
            "fmnist",
            "FashionMNIST",
            "b42e0f3189f494f730119201c9e1a41654a875ffd564ea07b7cf8032d5327c02",
            [1000] * 10,
        ),
    ],
)
def test_real_data(name, class_name, checksum, per_class):
    folder = Path(PROJECT, "data", class_name, "raw")
    if not all((folder / file_name).exists() for file_name in FILE_NAMES):
        pytest.skip(f"{class_name} is not in {folder}")
    dataset = load(name)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (51_000, 9_000, 10_000)
    assert dataset.train.inputs.shape[1:] == (1, 28, 28)
    assert torch.bincount(dataset.test.labels).tolist() == per_class
    assert torch.equal(dataset.train.inputs.flatten(1).amax(1), torch.ones(51_000))
    assert dataset.checksum == checksum
    assert len(dataset.classes) == 10
