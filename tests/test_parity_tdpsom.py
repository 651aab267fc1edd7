"""T-DPSOM computes what the original TensorFlow code computes: golden numbers of tests/fixtures or PARITY_FIXTURES."""

from experiments.engine.optimization import PhasedAdam
from models import lstm, networks
from models.tdpsom import TDPSOM, SeriesLayout
from scripts import parity
from scripts.golden import Golden, compare_forward, compare_gradients, compare_losses, compare_training

import pytest
import torch
from deviations import assert_within, beyond

MODEL = parity.MODELS["T-DPSOM"]


@pytest.fixture(scope="module")
def deviations():
    return parity.compare_model(MODEL)


@pytest.mark.parametrize("quantity", MODEL.quantities)
def test_equals_the_original(deviations, quantity):
    assert_within(deviations, quantity)


# --------------------------------------------------------------- the comparison notices what it is there to notice


def at_the_recipe():
    """A golden file and our model at its weights."""
    golden = Golden(parity.golden_file(MODEL))
    return golden, parity.TDPSOMPort(golden)


def configured(**changes):
    return lambda *arguments, **settings: TDPSOM(*arguments, **{**settings, **changes})


FORWARD_DEFECTS = {
    "logistic sigmoid": (parity, "TDPSOM", configured(recurrent_activation="sigmoid")),
    "PyTorch's hard sigmoid": (lstm.RECURRENT_ACTIVATIONS, "hard_sigmoid", torch.nn.functional.hardsigmoid),
    "a smallest scale": (parity, "TDPSOM", configured(scale_minimum=1e-3)),
    "leaky ReLU of slope 0.01": (networks, "LEAK", 0.01),
    "normalisation before the activation": (parity, "TDPSOM", configured(normalize_before=True)),
}


@pytest.mark.parametrize("defect", FORWARD_DEFECTS)
def test_defect_in_the_forward_pass_is_noticed(monkeypatch, defect):
    owner, name, value = FORWARD_DEFECTS[defect]
    (monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr)(owner, name, value)
    golden, port = at_the_recipe()
    assert "forward arrays" in beyond(compare_forward(golden, port))
    assert "loss terms" in beyond(compare_losses(golden, port))


def rows_of_one_long_series(self, rows):
    return rows[None]


def test_series_that_run_into_each_other_are_noticed(monkeypatch):
    monkeypatch.setattr(SeriesLayout, "series", rows_of_one_long_series)
    monkeypatch.setattr(SeriesLayout, "rows", lambda self, series: series.flatten(0, 1))
    golden, port = at_the_recipe()
    noticed = {
        deviation.item
        for deviation in compare_losses(golden, port)
        if not deviation.within and deviation.item[0] != "w"
    }
    assert {"smooth", "pred"} <= noticed
    assert not {"rec", "commit", "som", "a"} & noticed


def smoothness_through_the_centroids(self, latents, winners, layout):
    """The centroids follow the latents, too."""
    detach = torch.Tensor.detach
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "detach", lambda tensor: tensor if tensor is self.centroids else detach(tensor))
        return smoothness(self, latents, winners, layout)


def prediction_through_the_latents(self, inputs, mask=None, noise=None):
    """The encoder makes itself predictable."""
    layout = SeriesLayout(inputs, mask)
    _, latents, _ = self._encode_series(inputs, layout, noise)
    return {"loss": self.prediction_nll(latents, layout)}


smoothness = TDPSOM.smoothness


@pytest.mark.parametrize(
    ("name", "defect"),
    [("smoothness", smoothness_through_the_centroids), ("prediction_loss", prediction_through_the_latents)],
)
def test_defect_in_the_gradients_alone_is_noticed(monkeypatch, name, defect):
    monkeypatch.setattr(TDPSOM, name, defect)
    golden, port = at_the_recipe()
    assert not beyond(compare_losses(golden, port))
    assert "variables a loss reaches" in beyond(compare_gradients(golden, port))


class OwnCounter(PhasedAdam):
    """Every second step of the joint phase, the forecaster's, is not counted, as if it had an Adam of its own."""

    steps = 0

    def step_at(self, learning_rate):
        group = self.param_groups[0]
        before = group["count"], group["beta_powers"]
        super().step_at(learning_rate)
        self.steps += 1
        if self.steps in (7, 9):
            group["count"], group["beta_powers"] = before


def test_defect_in_the_optimiser_is_noticed():
    golden, port = at_the_recipe()
    assert "change of the map across the decay" in beyond(compare_training(golden, port, OwnCounter))
