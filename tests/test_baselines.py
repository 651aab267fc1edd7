"""k-means and MiniSom from the command line to the record."""

from functools import partial

from experiments import baselines
from experiments.engine.kmeans import kmeans
from experiments.engine.plain_som import minisom
from experiments.errors import UserError
from experiments.ingredients.data import load_dataset
from models.grid import Grid

import command_line
import numpy as np
import pytest
import torch
from minisom import MiniSom
from sklearn.cluster import KMeans

run = partial(command_line.run, baselines.ex)
SHORT = "data.limit=200 model.steps=500 model.restarts=2 model.map_size='[2, 4]'"
PICTURES = {"decoded_map", "hit_map", "label_map", "u_matrix", "nearest_samples", "reconstructions"}
pytestmark = pytest.mark.usefixtures("in_process")


def corners():
    """Three samples near each corner of a square."""
    centres = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return centres, np.repeat(centres, 3, axis=0) + np.tile([[-0.01], [0.0], [0.01]], (4, 1)).astype(np.float32)


def test_kmeans_finds_the_clusters():
    centres, samples = corners()
    found = kmeans(samples, 4, restarts=5, seed=0)
    np.testing.assert_allclose(found[np.lexsort(found.round().T[::-1])], centres, atol=1e-5)


def test_kmeans_with_a_bar_equals_scikit_learns():
    samples = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    expected = KMeans(12, n_init=6, random_state=3).fit(samples).cluster_centers_
    np.testing.assert_array_equal(kmeans(samples, 12, restarts=6, seed=3), expected)
    assert not np.array_equal(kmeans(samples, 12, restarts=1, seed=3), expected)


def test_minisom_keeps_neighbours_together():
    """Units are in the order of the grid: those at opposite corners of the map are furthest apart."""
    grid = Grid(2, 2, torus=False)
    found = torch.from_numpy(minisom(corners()[1], grid, steps=3000, sigma=0.7, learning_rate=0.5, seed=0))
    between = torch.cdist(found, found)
    assert between[grid.distances() == 2].min() > between[grid.distances() == 1].max()


def test_minisom_with_a_bar_equals_minisom():
    samples = np.random.default_rng(0).normal(size=(300, 5))
    som = MiniSom(3, 4, 5, sigma=1.0, learning_rate=0.5, random_seed=3)
    som.random_weights_init(samples)
    som.train_random(samples, 700)
    found = minisom(samples, Grid(3, 4, torus=False), steps=700, sigma=1.0, learning_rate=0.5, seed=3)
    np.testing.assert_array_equal(found, som.get_weights().reshape(12, 5))


def test_the_nearest_centroid_is_the_reconstruction():
    centroids = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    inputs = torch.tensor([[0.9, 0.8], [0.1, 0.0]]).view(2, 1, 1, 2)
    assert baselines.nearest(centroids, inputs).flatten(1).tolist() == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("name", ["kmeans", "minisom"])
def test_a_run_leaves_its_result_its_record_and_its_pictures(tmp_path, name):
    finished = run(tmp_path / "first", f"digits_{name} {SHORT}")
    assert finished.status == 0, finished.errors
    assert finished.output.splitlines()[-1] == f"run folder: {finished.folder}"
    assert finished.metrics["test/purity"] > 0.3
    assert ("test/topographic_error" in finished.metrics) == (name == "minisom")
    assert set(finished.record["seconds"]) == {"fit"}
    assert {path.stem for path in (finished.folder / "figures").glob("*.png")} == PICTURES
    assert run(tmp_path / "same", f"digits_{name} {SHORT}").metrics == finished.metrics
    assert run(tmp_path / "other", f"digits_{name} seed=1 {SHORT}").metrics != finished.metrics


def test_sequences_are_clustered_frame_by_frame_and_their_transitions_counted(tmp_path):
    finished = run(tmp_path, f"digits_kmeans {SHORT} series.enabled=True model.sequence_length=8")
    assert finished.status == 0, finished.errors
    assert finished.metrics["test_series/purity"] > 0.2
    assert 0 < finished.metrics["test_series/counted_transition_nll"] < np.log(8)
    assert "test_series/transition_nll" not in finished.metrics
    pictures = {path.stem for path in (finished.folder / "figures").glob("*.png")}
    assert pictures == PICTURES | {"transition_graph", "paths_on_map", "sampled_paths"}


def test_more_units_than_samples_are_one_line(tmp_path):
    finished = run(tmp_path, "digits_kmeans data.limit=20 model.map_size='[5, 5]'")
    assert finished.status == 2
    assert finished.errors.splitlines()[-1] == (
        "error: model.map_size=[5, 5] has more units than the 20 samples: lower it"
    )


@pytest.mark.parametrize(("name", "value"), [("device", "cuda"), ("precision", "bf16"), ("compile", True)])
def test_what_would_be_left_idle_is_refused(name, value):
    with pytest.raises(UserError, match=rf"compute\.{name} is {value!r}"):
        baselines.ex.run("print_config", {"compute": {name: value}}, options={"--force": True, "--loglevel": "ERROR"})


@pytest.mark.parametrize("series", [False, True])
def test_centroids_are_fitted_to_the_training_split(tmp_path, monkeypatch, series):
    seen = []
    monkeypatch.setitem(
        baselines.METHODS, "kmeans", lambda samples, model, grid, seed: seen.append(samples) or samples[: grid.size]
    )
    settings = f"digits_kmeans data.limit=200 series.enabled={series} series.noise=0.0 model.sequence_length=8"
    finished = run(tmp_path, f"{settings} tracking.figures=False")
    assert finished.status == 0, finished.errors
    (samples,) = seen
    train = load_dataset(**finished.record["config"]["data"]).train.inputs.flatten(1).numpy()
    assert samples.shape == train.shape
    starts = samples[::8] if series else samples  # the first frame of a sequence is a picture
    assert {row.tobytes() for row in starts} <= {row.tobytes() for row in train}


def test_methods_take_their_settings():
    samples, grid = np.random.default_rng(0).random((100, 5)), Grid(3, 4, False)
    settings = {"restarts": 6, "steps": 70, "sigma": 1.7, "learning_rate": 0.2}
    np.testing.assert_array_equal(baselines.METHODS["kmeans"](samples, settings, grid, 3), kmeans(samples, 12, 6, 3))
    np.testing.assert_array_equal(
        baselines.METHODS["minisom"](samples, settings, grid, 3),
        minisom(samples, grid, steps=70, sigma=1.7, learning_rate=0.2, seed=3),
    )


def test_the_record_holds_the_errors_of_both_splits(tmp_path, monkeypatch):
    monkeypatch.setitem(baselines.METHODS, "kmeans", lambda samples, model, grid, seed: samples[: grid.size])
    finished = run(tmp_path, "digits_kmeans data.limit=200 tracking.figures=False")
    dataset = load_dataset(**finished.record["config"]["data"])
    centroids = dataset.train.inputs[:16].flatten(1)
    for name, split in dataset.held_out.items():
        distances, units = torch.cdist(split.inputs.flatten(1), centroids).min(dim=1)
        assert finished.metrics[f"{name}/reconstruction_error"] == pytest.approx(
            distances.square().mean().item() / 64, rel=1e-4
        )
        counts = np.zeros((16, 10))
        np.add.at(counts, (units, split.labels), 1)
        assert finished.metrics[f"{name}/purity"] == pytest.approx(counts.max(axis=1).sum() / len(split))
