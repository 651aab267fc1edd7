"""The run folder: whole whatever happens, or the run does not look fine; no credentials; TensorBoard and pictures."""

import json
import random
import shutil
from datetime import datetime
from pathlib import Path

from experiments import PROJECT
from experiments.errors import UserError
from experiments.files import write_atomically
from experiments.ingredients.tracking import PROJECTOR_POINTS, Tracker
from experiments.observers.redaction import for_record, redact, relative
from experiments.observers.run_folder import OUTPUT_HEAD, OUTPUT_TAIL, captured_output, plain

import numpy as np
import pymongo
import pytest
import torch
from dummy import dummy_experiment, run_dummy
from matplotlib.figure import Figure
from mongo import wait_for
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

SECRET = "pAssw0rd"


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------- the run folder


def test_run_folder_holds_the_run(tmp_path):
    def body(tracker):
        assert tracker.folder == tmp_path / "runs" / "dummy" / "1"
        tracker.scalars({"loss": torch.tensor(0.5), "nmi": np.float32(0.25), "empty": float("nan"), "units": 7}, step=3)
        tracker.scalars({"loss": np.array(0.125)}, step=np.int64(4))
        print("last words")
        return {"nmi": 0.25}

    run_dummy(body, tmp_path / "runs")
    folder = tmp_path / "runs" / "dummy" / "1"
    stored = read(folder, "run.json")
    assert (stored["status"], stored["result"]) == ("COMPLETED", {"nmi": 0.25})
    assert datetime.fromisoformat(stored["stop_time"]) >= datetime.fromisoformat(stored["start_time"])
    assert read(folder, "config.json")["tracking"]["runs_dir"] == str(tmp_path / "runs")
    metrics = read(folder, "metrics.json")
    assert {name: (metric["steps"], metric["values"]) for name, metric in metrics.items() if name != "empty"} == {
        "loss": ([3, 4], [0.5, 0.125]),
        "nmi": ([3], [0.25]),
        "units": ([3], [7.0]),
    }
    assert np.isnan(metrics["empty"]["values"]).tolist() == [True]
    assert (folder / "cout.txt").read_text() == "last words\n"


def test_runs_in_one_process_do_not_pile_up_observers(tmp_path):
    experiment = dummy_experiment()

    @experiment.main
    def main():
        pass

    for number in (1, 2, 3):
        run = experiment.run(config_updates={"tracking": {"runs_dir": str(tmp_path)}})
        assert len(run.observers) == 1
        assert run._id == str(number)
        assert len(list((tmp_path / "dummy").glob("[0-9]*"))) == number


def test_printing_the_config_creates_nothing(tmp_path):
    experiment = dummy_experiment()

    @experiment.main
    def main():
        pass

    experiment.run("print_config", config_updates={"tracking": {"runs_dir": str(tmp_path / "runs")}})
    assert not (tmp_path / "runs").exists()


def test_unwritable_folder_is_a_users_error_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"tracking.runs_dir") as error:
        run_dummy(lambda tracker: pytest.fail("ran"), tmp_path / "file" / "runs")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folder_that_turns_out_unwritable_is_a_users_error_too(tmp_path, monkeypatch, caplog):
    """Permissions may promise what the file system then refuses."""

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.mkdir", refuse)
    with pytest.raises(UserError, match=r"Permission denied.*tracking.runs_dir"):
        run_dummy(lambda tracker: pytest.fail("ran"), tmp_path / "runs")
    assert "Traceback" not in caplog.text


def test_unobserved_run_is_told_that_it_needs_a_folder(tmp_path):
    experiment = dummy_experiment()

    @experiment.main
    def main(_run):
        Tracker(_run)

    with pytest.raises(UserError, match="--unobserved"):
        experiment.run(config_updates={"tracking": {"runs_dir": str(tmp_path)}}, options={"--unobserved": True})


# ---------------------------------------------------------------- values Sacred cannot store, folders that break


class Unstorable:
    def __reduce__(self):
        raise TypeError("cannot be stored")

    def __repr__(self):
        return "something unstorable"


def test_values_that_cannot_be_stored_are_described(tmp_path):
    def body(tracker):
        tracker.run.info.update(
            tensor=torch.ones(2, requires_grad=True),
            zero_dimensional=np.array(3),
            large=torch.zeros(200, 100),
            path=Path("figures/map.png"),
            pair=(1, {2}),
            whole=2**70,
            broken_text="\ud800",
        )
        tracker.run.info[5] = Unstorable()
        return Unstorable()

    run_dummy(body, tmp_path)
    assert read(tmp_path / "dummy" / "1", "run.json")["result"] == "something unstorable"
    assert read(tmp_path / "dummy" / "1", "info.json") == {
        "5": "something unstorable",
        "tensor": [1.0, 1.0],
        "zero_dimensional": 3,
        "large": "array of shape [200, 100]",
        "path": "figures/map.png",
        "pair": [1, [2]],
        "whole": str(2**70),
        "broken_text": "?",
    }


def test_values_that_cannot_be_stored_reach_mongo(tmp_path, mongo_url):
    def body(tracker):
        tracker.run.info.update(whole=2**70, tensor=torch.ones(2), thing=Unstorable(), broken_text="\ud800")

    run_dummy(body, tmp_path, mongo_url=mongo_url)
    with pymongo.MongoClient(mongo_url) as client:
        (entry,) = client.get_default_database()["runs"].find()
    assert entry["status"] == "COMPLETED"
    assert entry["info"] == {
        "whole": str(2**70),
        "tensor": [1.0, 1.0],
        "thing": "something unstorable",
        "broken_text": "?",
        "metrics": [],
    }


def test_scalar_must_be_one_number(tmp_path):
    def body(tracker):
        for value in (torch.ones(2), "high", None):
            with pytest.raises(TypeError, match="loss is no single number"):
                tracker.scalars({"loss": value}, 0)

    run_dummy(body, tmp_path)


def test_run_stops_when_its_folder_breaks(tmp_path):
    """Sacred alone would drop the observer, go on and call the run COMPLETED."""

    def body(tracker):
        shutil.rmtree(tracker.folder)
        for step in range(10_000):
            tracker.scalars({"loss": 1.0}, step)
            torch.zeros(1).add_(1)
            if tracker._run_folder.error:
                break
        else:
            pytest.fail("the broken folder was not noticed")
        return "looks fine"

    with pytest.raises(UserError, match=r"could not be written \(No such file or directory\)") as error:
        run_dummy(body, tmp_path, beat=0.01, tensorboard=False)
    assert "\n" not in str(error.value)


def test_a_disk_that_fills_after_training_is_a_users_error(tmp_path):
    def body(tracker):
        (tracker.folder / "figures").write_text("in the way of a folder")
        tracker.figure("hits", picture(1.0), 0)

    with pytest.raises(UserError, match=r"cannot write the run's files \(.*figures.*\): free space, then resume"):
        run_dummy(body, tmp_path)
    assert read(tmp_path / "dummy" / "1", "run.json")["status"] == "FAILED"


def test_a_disk_that_tensorboard_finds_full_hides_no_other_error(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.close", full)

    def interrupted(tracker):
        raise KeyboardInterrupt

    with pytest.raises(UserError, match=r"cannot write the run's files .*No space left"):
        run_dummy(lambda tracker: None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_dummy(interrupted, tmp_path)
    assert read(tmp_path / "dummy" / "2", "run.json")["status"] == "INTERRUPTED"


def test_folder_that_breaks_after_the_main_function_is_reported(tmp_path):
    """The last metrics are written after `main` has returned; if that fails, the run is not COMPLETED either."""

    def body(tracker):
        tracker.scalars({"loss": 1.0}, 0)
        (tracker.folder / "metrics.json").mkdir()  # in the way of the file

    with pytest.raises(UserError, match="could not be written"):
        run_dummy(body, tmp_path, beat=1000)
    stored = read(tmp_path / "dummy" / "1", "run.json")
    assert stored["status"] == "FAILED"
    assert "could not be written" in stored["fail_trace"][0]


def test_files_are_replaced_in_one_step(tmp_path, monkeypatch):
    """A process killed while it writes leaves the earlier version."""
    path = tmp_path / "run.json"
    write_atomically(path, b"earlier")

    def killed(self, target):
        assert self.read_bytes() == b"later"
        assert path.read_bytes() == b"earlier"
        raise OSError("killed")

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(OSError, match="killed"):
        write_atomically(path, b"later")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("run.json", b"earlier")]


# ---------------------------------------------------------------- captured output


def test_progress_bars_are_stored_as_a_terminal_shows_them(tmp_path):
    def body(tracker):
        for percent in range(0, 101, 10):
            print(f"\rjoint {percent:3d}%|{'#' * (percent // 10)}", end="")
            torch.zeros(1)
            if percent == 50:
                wait_for_heartbeat(tracker)
        print("\nlast words")

    run_dummy(body, tmp_path)
    assert (tmp_path / "dummy" / "1" / "cout.txt").read_text() == "joint 100%|##########\nlast words\n"


def wait_for_heartbeat(tracker):
    before = read(tracker.folder, "run.json")["heartbeat"]
    wait_for(lambda: read(tracker.folder, "run.json")["heartbeat"] != before)


def test_output_is_whole_however_often_it_is_read(tmp_path):
    lines = "".join(f"line {number}\n" for number in range(100_000))

    def body(tracker):
        for line in lines.splitlines():
            print(line)

    run_dummy(body, tmp_path, beat=0.0001, tensorboard=False)
    kept = (tmp_path / "dummy" / "1" / "cout.txt").read_text()
    assert len(kept) >= OUTPUT_HEAD + OUTPUT_TAIL
    assert lines.startswith(kept[:OUTPUT_HEAD])
    assert lines.endswith(kept[-OUTPUT_TAIL:])


def test_failing_run_keeps_what_it_printed(tmp_path):
    def body(tracker):
        print("last words")
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        run_dummy(body, tmp_path, beat=1000)
    assert (tmp_path / "dummy" / "1" / "cout.txt").read_text() == "last words\n"


def test_captured_output_is_bounded_and_keeps_both_ends():
    text = ""
    for part in range(16):
        text = captured_output(text + f"part {part}\n" + "x" * 99_999 + "\n")
        assert len(text) < 1_001_000
    assert text.startswith("part 0\n")
    assert text.count("left out") == 1
    assert "part 15\n" in text
    assert "part 5\n" not in text


# ---------------------------------------------------------------- credentials


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mongodb://user:secret@host/db", "mongodb://***@host/db"),
        ("mongodb+srv://user:secret@host/db?w=1", "mongodb+srv://***@host/db?w=1"),
        ("mongodb://user:sec@ret/x@h1:1,h2:2/db", "mongodb://***@h1:1,h2:2/db"),
        ("x=mongodb://user:secret@host and 'MONGODB://a:b@c'", "x=mongodb://***@host and 'MONGODB://***@c'"),
        (
            "mongodb://host/?tlsCertificateKeyFilePassword=abc&w=1",
            "mongodb://host/?tlsCertificateKeyFilePassword=***&w=1",
        ),
        ("https://token@example.org/a.git", "https://***@example.org/a.git"),
        ("mongodb://host/db", "mongodb://host/db"),
        ("see https://example.org/@name, mail a@b.org", "see https://example.org/@name, mail a@b.org"),
    ],
)
def test_redact(text, redacted):
    assert redact(text) == redacted
    assert redact({"a": [text, 1, None], "b": {text: (text,)}}) == {
        "a": [redacted, 1, None],
        "b": {redacted: [redacted]},
    }


def test_record_names_no_host_and_no_place_on_this_machine():
    config = {
        "seed": 1,
        "data": {"root": str(PROJECT / "data" / "mnist")},
        "tracking": {"runs_dir": "/srv/somewhere/runs", "mongo_url": "mongodb://user:secret@host.example/db"},
        "resume": "runs/dpsom/3",
    }
    assert for_record(config) == {
        "seed": 1,
        "data": {"root": "data/mnist"},
        "tracking": {"runs_dir": "runs", "mongo_url": "mongodb://***"},
        "resume": "runs/dpsom/3",
    }
    assert config["tracking"]["runs_dir"] == "/srv/somewhere/runs", "the argument was changed"
    assert relative(Path("runs") / "dpsom") == "runs/dpsom"


@pytest.mark.parametrize("source", ["config", "environment"])
def test_password_is_nowhere(tmp_path, mongod, monkeypatch, capfd, source):
    """A real user with a password, and an experiment that does its best to leak it."""
    mongod.start()
    with pymongo.MongoClient(mongod.url("db")) as client:
        client["db"].command("createUser", "user", pwd=SECRET, roles=["readWrite"])
    url = mongod.url("db", user=f"user:{SECRET}@")
    monkeypatch.setenv("SACRED_MONGO_URL", url)
    experiment = dummy_experiment()

    @experiment.main
    def main(_run, _config):
        with Tracker(_run) as tracker:
            print("printed:", url, {"url": url})
            print(_config)
            _run.info["url"] = url
            tracker.hparams(_config | {"url": url}, {"nmi": 0.5})
            tracker.scalars({"loss": 1.0}, 0)
        raise ValueError(f"cannot reach {url}")

    updates = [f"tracking.runs_dir={tmp_path}/runs"] + [f"tracking.mongo_url={url}"] * (source == "config")
    with pytest.raises(SystemExit):
        experiment.run_commandline(["dummy", "with", *updates, "--print-config"])
    assert SECRET in capfd.readouterr().out, "the test leaks nothing that could be caught"

    stored = all_bytes(tmp_path / "runs")
    assert b"mongodb://***@127.0.0.1" in stored
    assert b"cannot reach mongodb://***@" in stored
    assert SECRET.encode() not in stored
    with pymongo.MongoClient(url) as client:
        database = client["db"]
        documents = {name: list(database[name].find()) for name in database.list_collection_names()}
    assert [entry["status"] for entry in documents["runs"]] == ["FAILED"]
    assert "mongodb://***@127.0.0.1" in str(documents)
    assert SECRET not in str(documents)


# ---------------------------------------------------------------- TensorBoard, pictures, artifacts


def picture(value: float) -> Figure:
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.add_subplot().imshow([[value, 0]], vmin=0, vmax=1)
    return figure


def test_tensorboard_holds_scalars_pictures_and_hparams_in_one_log(tmp_path):
    def body(tracker):
        tracker.scalars({"joint/loss": 2.0}, 0)
        tracker.scalars({"joint/loss": 1.0, "validation/nmi": 0.5}, 1)
        tracker.figure("map/decoded", picture(0.2), 0)
        tracker.figure("map/decoded", picture(0.8), 1)
        tracker.hparams(
            {"seed": 0, "model": {"map_size": (8, 8), "torus": True}, "resume": None},
            {"validation/nmi": 0.5, "test/nmi": 0.25},
        )

    run_dummy(body, tmp_path)
    folder = tmp_path / "dummy" / "1"
    assert len([path for path in (folder / "tensorboard").rglob("*") if path.is_file()]) == 1
    log = events(folder)
    scalars = {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
    assert scalars == {
        "joint/loss": [(0, 2.0), (1, 1.0)],
        "validation/nmi": [(1, 0.5)],
        "test/nmi": [(0, 0.25)],
    }
    assert [(image.step, image.width, image.height) for image in log.Images("map/decoded")] == [
        (0, 100, 50),
        (1, 100, 50),
    ]
    content = HParamsPluginData.FromString(
        log.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info.hparams
    assert {name: getattr(value, value.WhichOneof("kind")) for name, value in content.items()} == {
        "seed": 0,
        "model.map_size": "[8, 8]",
        "model.torus": 1,
    }


def test_png_holds_the_latest_picture_and_is_an_artifact_once(tmp_path):
    def body(tracker):
        tracker.figure("map/decoded", picture(0.2), 0)
        first = (tracker.folder / "figures" / "map_decoded.png").read_bytes()
        tracker.figure("map/decoded", picture(0.8), 1)
        assert (tracker.folder / "figures" / "map_decoded.png").read_bytes() != first

    run_dummy(body, tmp_path)
    folder = tmp_path / "dummy" / "1"
    assert read(folder, "run.json")["artifacts"] == ["figures/map_decoded.png"]
    with Image.open(folder / "figures" / "map_decoded.png") as image:
        assert image.size == (100, 50)


@pytest.mark.parametrize(("shape", "points"), [((1, 8, 8), 40), ((3, 6, 10), 40), ((1, 10, 6), 7)])
def test_projector_shows_latents_labels_and_thumbnails(tmp_path, shape, points):
    latents = torch.arange(points * 2.0).reshape(points, 2)
    thumbnails = torch.linspace(0, 1, points).reshape(points, 1, 1, 1).expand(points, *shape)

    run_dummy(lambda tracker: tracker.embedding(latents, torch.arange(points), thumbnails, 5), tmp_path)
    (folder,) = (tmp_path / "dummy" / "1" / "tensorboard" / "00005").iterdir()
    np.testing.assert_array_equal(np.loadtxt(folder / "tensors.tsv"), latents)
    assert (folder / "metadata.tsv").read_text().split() == [str(label) for label in range(points)]
    side = max(shape[1:])
    columns = int(np.ceil(points**0.5))
    with Image.open(folder / "sprite.png") as image:
        assert image.size == (columns * side, columns * side)
        pixels = np.asarray(image)
    last = pixels[(points - 1) // columns * side, (points - 1) % columns * side]
    assert last.tolist() == [255, 255, 255]
    assert "single_image_dim" in (folder.parents[1] / "projector_config.pbtxt").read_text()


@pytest.mark.parametrize(("side", "points"), [(2, PROJECTOR_POINTS), (1000, 64)])
def test_projector_takes_an_even_part_of_too_many_points(tmp_path, monkeypatch, side, points):
    """8192 pixels hold 8 × 8 thumbnails of 1000 pixels."""
    given = {}

    def add_embedding(self, latents, metadata, label_img, **kwargs):
        given.update(latents=latents, labels=metadata, thumbnails=label_img)

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_embedding", add_embedding)
    count = points * 3
    latents = torch.arange(count, dtype=torch.float32).reshape(-1, 1)
    thumbnails = torch.zeros(1, 1, side, side).expand(count, 1, side, side)
    run_dummy(lambda tracker: tracker.embedding(latents, torch.arange(count), thumbnails), tmp_path)
    assert len(given["latents"]) == len(given["labels"]) == len(given["thumbnails"]) == points
    assert given["labels"] == given["latents"][:, 0].astype(int).tolist()
    assert (given["labels"][0], given["labels"][-1]) == (0, count - 1)
    assert set(np.diff(given["labels"])) <= {2, 3, 4}


def test_tensorboard_and_figures_can_be_switched_off(tmp_path):
    def body(tracker):
        tracker.scalars({"loss": 1.0}, 0)
        tracker.figure("map", picture(0.5), 0)
        tracker.embedding(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, 1, 4, 4))
        tracker.hparams({"seed": 0}, {"nmi": 0.5})

    run_dummy(body, tmp_path, tensorboard=False, figures=False)
    assert {path.name for path in (tmp_path / "dummy" / "1").iterdir()} == {
        "config.json",
        "run.json",
        "metrics.json",
        "cout.txt",
    }


def test_artifacts_are_kept_and_missing_ones_are_a_users_error(tmp_path):
    def body(tracker):
        inside = tracker.folder / "checkpoint.pt"
        inside.write_bytes(b"weights")
        tracker.artifact(inside)
        outside = tmp_path / "notes.txt"
        outside.write_text("from elsewhere")
        tracker.artifact(outside)
        with pytest.raises(UserError, match=r"no file .*missing.pt"):
            tracker.artifact(tracker.folder / "missing.pt")

    run_dummy(body, tmp_path / "runs")
    folder = tmp_path / "runs" / "dummy" / "1"
    assert read(folder, "run.json")["artifacts"] == ["checkpoint.pt", "notes.txt"]
    assert (folder / "notes.txt").read_text() == "from elsewhere"


def test_artifact_under_the_name_of_a_file_of_sacred_is_an_error(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="overwrite a file necessary"):
        run_dummy(lambda tracker: tracker.artifact(tmp_path / "run.json"), tmp_path / "runs")
    assert read(tmp_path / "runs" / "dummy" / "1", "run.json")["status"] == "FAILED"


def test_tracking_draws_no_random_numbers(tmp_path):
    def states():
        numpy_state = str(np.random.get_state())  # noqa: NPY002
        return random.getstate(), numpy_state, torch.get_rng_state().tolist()

    def body(tracker):
        tracker.scalars({"loss": 1.0}, 0)
        tracker.figure("map", picture(0.5), 0)
        tracker.embedding(torch.zeros(9, 2), torch.zeros(9), torch.zeros(9, 1, 4, 4))
        tracker.hparams({"seed": 0}, {"nmi": 0.5})
        tracker.artifact(__file__)
        tracker.close()
        return states()

    experiment = dummy_experiment()

    @experiment.main
    def main(_run):
        before = states()
        assert body(Tracker(_run)) == before

    experiment.run(config_updates={"tracking": {"runs_dir": str(tmp_path)}})


def test_plain_keeps_what_json_has():
    value = {"a": [1, 2.5, True, None, "text"], "b": {"c": []}}
    assert plain(value) == value
    assert plain({1: np.bool_(True), "date": datetime(2020, 1, 2)}) == {"1": True, "date": "2020-01-02T00:00:00"}
