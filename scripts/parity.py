"""Proves our models against golden numbers of the TensorFlow originals: `python scripts/parity.py`.

Writes the worst deviation of every quantity to `results/parity_golden.json`, from which `scripts/tables.py` renders
`results/tables/parity_golden.md`; exits with status 1 when one exceeds its tolerance. The environment variable
`PARITY_FIXTURES` names another folder than `tests/fixtures` with files of the same names.

A new model adds a `Port` and an entry of MODELS.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments import PROJECT
from experiments.errors import UserError, reported
from experiments.ingredients.compute import versions
from experiments.record import Provenance
from models import assignment
from models.dpsom import DPSOM, LossWeights
from models.grid import Grid
from models.somvae import SOMVAE
from models.somvae import LossWeights as SOMVAELossWeights
from models.tdpsom import TDPSOM
from models.tdpsom import LossWeights as TDPSOMLossWeights
from scripts.golden import QUANTITIES, TARGET_QUANTITIES, Deviation, Golden, Port, Slot, compare
from scripts.records import write_result

import numpy as np
import torch
from torch import Tensor

RECORD = PROJECT / "results" / "parity_golden.json"
IMAGE_SHAPE = (28, 28, 1)


class ProbabilisticPort(Port):
    """What DPSOM and T-DPSOM have in common; `rows` are the samples as the encoder takes them."""

    rows: Tensor

    def forward(self, noise: Tensor) -> dict[str, Tensor]:
        model, posterior = self.model, self.model.posterior
        parameters = model.encoder(self.rows)
        latents, kl = model.encode(self.rows, noise)
        soft, target = self.assign(noise)
        winners = self.winners(noise)
        return {
            "loc": posterior.mean(parameters),
            "scale_diag": posterior.scale_diagonal(parameters),
            "z": latents,
            "d": model.distances(latents),
            "q": soft,
            "p": target,
            "k": winners,
            "nb": torch.cat([winners[:, None], model.neighbours[winners]], dim=1),
            "kl_i": kl,
        }

    def winners(self, noise: Tensor) -> Tensor:
        latents, _ = self.model.encode(self.rows, noise)
        return self.model.distances(latents).argmin(dim=1)

    def assign(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        latents, _ = self.model.encode(self.rows, noise)
        soft = self.model.assign(latents)
        return soft, assignment.target_distribution(soft)


class DPSOMPort(ProbabilisticPort):
    """DPSOM as its original code computes it, dense or convolutional as the file says."""

    def __init__(self, golden: Golden) -> None:
        hyper = golden.hyper
        self.model = DPSOM(
            (1, 28, 28),
            Grid(*hyper["som_dim"], torus=True),
            latent_dim=hyper["latent_dim"],
            network="conv" if hyper["convolution"] else "dense",
            posterior="full",
            normalization="affine",
            normalize_before=False,
            dropout=0.0,
            leaky_logits=True,
            alpha=hyper["alpha"],
            weights=LossWeights(**{name: hyper[name] for name in ("theta", "gamma", "beta", "prior")}),
        )
        latent_dim = hyper["latent_dim"]
        order = self.model.posterior.tfp_order()
        self.head_order = torch.cat([torch.arange(latent_dim), latent_dim + order])
        parameters = [self.model.centroids, *self.model.encoder.parameters(), *self.model.decoder.parameters()]
        self.slots = [
            Slot(variable, parameter, self.head_order if variable.name.startswith("enc/head/") else None)
            for variable, parameter in zip(golden.variables, parameters, strict=True)
        ]
        for slot in self.slots:
            slot.load()
        generator = np.random.RandomState(golden.meta["input_seed"])
        images = generator.rand(golden.batch_size, *IMAGE_SHAPE).astype(np.float32)
        golden.check_input(images)
        self.inputs = self.rows = torch.from_numpy(images).permute(0, 3, 1, 2)

    def forward(self, noise: Tensor) -> dict[str, Tensor]:
        model, posterior = self.model, self.model.posterior
        shared, parameters = super().forward(noise), model.encoder(self.inputs)
        likelihoods = [
            model.elbo_terms(image[None], latent[None], kl)["negative_log_likelihood"]
            for image, latent, kl in zip(self.inputs, shared["z"], shared["kl_i"], strict=True)
        ]
        return shared | {
            "head_0": parameters[0, self.head_order],
            "scale_tril_0": posterior.scale_tril(parameters[:1])[0],
            "logits": model.decoder(shared["z"]).permute(0, 2, 3, 1).flatten(1),
            "log_lik_i": -torch.stack(likelihoods),
            "tril_index_map": self._cholesky_indices(),
        }

    def _cholesky_indices(self) -> Tensor:
        """`[L, L]`: place of each entry of the Cholesky factor among the original's head outputs behind the means."""
        positions = self.model.posterior.positions()
        return self.model.posterior.tfp_order().argsort()[positions].where(positions >= 0, -1)

    def losses(self, noise: Tensor, target: Tensor) -> dict[str, Tensor]:
        weights = self.model.weights
        pretraining = self.model.pretraining_loss(self.inputs, noise)
        initialization = self.model.som_initialization_loss(self.inputs, noise)
        joint = self.model.joint_loss(self.inputs, target, noise)
        return {
            "kl": joint["kl"],
            "neg_log_lik": joint["negative_log_likelihood"],
            "rec": pretraining["loss"],
            "commit": joint["commitment"],
            "som": joint["som"],
            "w_rec": weights.theta * joint["reconstruction"],
            "w_kl": weights.prior * joint["kl"],
            "w_commit": weights.gamma * joint["commitment"],
            "w_som": weights.beta * joint["som"],
            "joint": joint["loss"],
            "a": initialization["loss"],
            "a_commit": initialization["to_winner"],
            "a_som": initialization["neighbourhood"],
        }

    def phase_loss(self, phase: str, noise: Tensor, target: Tensor | None) -> Tensor:
        if phase == "rec":
            return self.model.pretraining_loss(self.inputs, noise)["loss"]
        if phase == "a":
            return self.model.som_initialization_loss(self.inputs, noise)["loss"]
        return self.model.joint_loss(self.inputs, target, noise)["loss"]


class SOMVAEPort(Port):
    """SOM-VAE as its original code computes it; the batch is one sequence."""

    def __init__(self, golden: Golden) -> None:
        hyper = golden.hyper
        self.model = SOMVAE(
            (1, 28, 28),
            Grid(*hyper["som_dim"], torus=False),
            latent_dim=hyper["latent_dim"],
            network="conv",
            gradients="full",
            weights=SOMVAELossWeights(
                **{name: hyper[name] for name in ("alpha", "beta", "gamma", "tau")}, gamma_twice=True
            ),
        )
        model = self.model
        parts = (model.encoder, model.decoder_q, model.decoder_e)
        parameters = [model.centroids, model.transition_logits, *(p for part in parts for p in part.parameters())]
        self.slots = [Slot(*pair) for pair in zip(golden.variables, parameters, strict=True)]
        for slot in self.slots:
            slot.load()
        generator = np.random.RandomState(golden.meta["input_seed"])
        images = generator.rand(golden.batch_size, *IMAGE_SHAPE)
        mask = generator.rand(golden.batch_size, 4, 4, 1) > 0.75
        images = (images * mask.repeat(7, axis=1).repeat(7, axis=2)).astype(np.float32)
        golden.check_input(images)
        self.inputs = torch.from_numpy(images).permute(0, 3, 1, 2)

    def forward(self, noise: None) -> dict[str, Tensor]:
        model = self.model
        latents = model.encode(self.inputs)
        winners = self.winners(noise)
        return {
            "z": latents,
            "d": model.distances(latents),
            "k": winners,
            "nb": torch.cat([winners[:, None], model.neighbours[winners]], dim=1),
            "x_hat_q": model.decode(model.quantize(latents)).permute(0, 2, 3, 1),
            "x_hat_e": model.decode_latents(latents).permute(0, 2, 3, 1),
            "P": model.transition_probabilities().reshape(model.grid.shape * 2),
        }

    def losses(self, noise: None, target: None) -> dict[str, Tensor]:
        weights = self.model.weights
        joint = self.model.joint_loss(self.inputs)
        transition = self.model.transition_loss(self.inputs)["loss"]
        return {
            "rec_q": joint["reconstruction_q"],
            "rec_e": joint["reconstruction_e"],
            "rec": joint["reconstruction_q"] + joint["reconstruction_e"],
            "commit": joint["commitment"],
            "som": joint["som"],
            "prob": transition,
            "zprob": joint["smoothness"],
            "w_commit": weights.alpha * joint["commitment"],
            "w_som": weights.beta * joint["som"],
            "w_prob": weights.gamma * transition,
            "w_zprob": weights.tau * joint["smoothness"],
            "joint": joint["loss"],
        }

    def phase_loss(self, phase: str, noise: None, target: None) -> Tensor:
        loss = self.model.transition_loss if phase == "prob" else self.model.joint_loss
        return loss(self.inputs)["loss"]

    def winners(self, noise: None) -> Tensor:
        return self.model.winners(self.inputs)


class TDPSOMPort(ProbabilisticPort):
    """T-DPSOM as its original code computes it; the file's rows are hours, series after series."""

    def __init__(self, golden: Golden) -> None:
        hyper = golden.hyper
        latent_dim = hyper["latent_dim"]
        self.model = TDPSOM(
            hyper["input_channels"],
            Grid(*hyper["som_dim"], torus=True),
            latent_dim=latent_dim,
            lstm_units=hyper["lstm_dim"],
            recurrent_activation="hard_sigmoid",
            normalization="affine",
            normalize_before=False,
            dropout=0.0,
            scale_minimum=0.0,
            alpha=hyper["alpha"],
            weights=TDPSOMLossWeights(
                **{name: hyper[name] for name in ("theta", "gamma", "beta", "kappa", "eta", "prior")}
            ),
        )
        model = self.model
        *encoder, weight, bias = model.encoder.parameters()
        parts = (model.lstm, model.forecast_head, model.decoder)
        parameters = [model.centroids, *encoder, weight, bias, weight, bias]  # one head of ours is mu and sigma
        parameters += [parameter for part in parts for parameter in part.parameters()]
        orders = {"enc/mu": torch.arange(latent_dim), "enc/sigma": torch.arange(latent_dim, 2 * latent_dim)}
        self.slots = [
            Slot(variable, parameter, orders.get(variable.name.rpartition("/")[0]))
            for variable, parameter in zip(golden.variables, parameters, strict=True)
        ]
        for slot in self.slots:
            slot.load()
        self.shape = (golden.batch_size, golden.meta["T"])
        generator = np.random.RandomState(golden.meta["input_seed"])
        series = generator.standard_normal((*self.shape, hyper["input_channels"])).astype(np.float32)
        golden.check_input(series)
        self.inputs = torch.from_numpy(series)
        self.rows = self.inputs.flatten(0, 1)

    def series(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, self.shape)

    def forward(self, noise: Tensor) -> dict[str, Tensor]:
        shared = super().forward(noise)
        reconstruction, prediction = self.model.decode(shared["z"]), self.model.predict(self.series(shared["z"]))
        return shared | {
            "log_lik_i": reconstruction.log_prob(self.rows),
            "dec_loc": reconstruction.mean,
            "dec_scale": reconstruction.stddev,
            "pred_loc": prediction.mean.flatten(0, 1),
            "pred_scale": prediction.stddev.flatten(0, 1),
        }

    def losses(self, noise: Tensor, target: Tensor) -> dict[str, Tensor]:
        weights, noise = self.model.weights, self.series(noise)
        initialization = self.model.som_initialization_loss(self.inputs, noise=noise)
        joint = self.model.joint_loss(self.inputs, self.series(target), noise=noise)
        return {
            "kl": joint["kl"],
            "neg_log_lik": joint["negative_log_likelihood"],
            "rec": self.model.pretraining_loss(self.inputs, noise=noise)["loss"],
            "commit": joint["commitment"],
            "som": joint["som"],
            "smooth": joint["smoothness"],
            "pred": self.model.prediction_loss(self.inputs, noise=noise)["loss"],
            "w_rec": weights.theta * joint["reconstruction"],
            "w_kl": weights.prior * joint["kl"],
            "w_commit": weights.gamma * joint["commitment"],
            "w_som": weights.beta * joint["som"],
            "w_smooth": weights.kappa * joint["smoothness"],
            "w_pred": weights.eta * joint["prediction"],
            "joint": joint["loss"],
            "a": initialization["loss"],
            "a_commit": initialization["to_winner"],
            "a_som": initialization["neighbourhood"],
        }

    def phase_loss(self, phase: str, noise: Tensor, target: Tensor | None) -> Tensor:
        noise = self.series(noise)
        if phase == "joint":
            return self.model.joint_loss(self.inputs, self.series(target), noise=noise)["loss"]
        losses = {
            "rec": self.model.pretraining_loss,
            "a": self.model.som_initialization_loss,
            "pred": self.model.prediction_loss,
        }
        return losses[phase](self.inputs, noise=noise)["loss"]


@dataclass(frozen=True)
class Model:
    """What is compared with a golden file, and the quantities it must cover."""

    file_name: str
    port: Callable[[Golden], Port]
    quantities: tuple[str, ...] = tuple(QUANTITIES)


WITHOUT_TARGET = tuple(name for name in QUANTITIES if name not in TARGET_QUANTITIES)
MODELS = {
    "DPSOM dense": Model("dpsom_dense.npz", DPSOMPort),
    "DPSOM conv": Model("dpsom_conv.npz", DPSOMPort),
    "T-DPSOM": Model("tdpsom.npz", TDPSOMPort),
    "SOM-VAE": Model("somvae.npz", SOMVAEPort, WITHOUT_TARGET),
}


def golden_file(model: Model) -> Path:
    return Path(os.environ.get("PARITY_FIXTURES") or PROJECT / "tests" / "fixtures") / model.file_name


def compare_model(model: Model) -> list[Deviation]:
    """Every deviation of a model from its golden file.

    Raises:
        UserError: the file cannot be used, or holds numbers that were not compared.
    """
    golden = Golden(golden_file(model))
    deviations = compare(golden, model.port(golden))
    missing = set(model.quantities) - {deviation.quantity for deviation in deviations}
    if golden.unused or missing:
        raise UserError(f"{model.file_name}: not compared: {', '.join(sorted(golden.unused | missing))}")
    return deviations


def worst_row(name: str, quantity: str, deviations: list[Deviation]) -> dict[str, object]:
    """One line of the table: the largest deviation of a quantity."""
    measure, tolerance = QUANTITIES[quantity]
    values = [deviation.value for deviation in deviations if deviation.quantity == quantity]
    worst = np.max(values)  # unlike max(), this lets NaN through
    return {
        "model": name,
        "quantity": quantity,
        "measure": measure,
        "worst": float(f"{worst:.3g}"),
        "tolerance": tolerance,
    }


@reported
def main(arguments: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    rows, beyond, checksums = [], [], {}
    for name, model in MODELS.items():
        deviations = compare_model(model)
        rows += [worst_row(name, quantity, deviations) for quantity in model.quantities]
        beyond += [f"{name}: {deviation}" for deviation in deviations if not deviation.within]
        checksums[model.file_name] = hashlib.sha256(golden_file(model).read_bytes()).hexdigest()
    for row in rows:
        deviation = f"{row['worst']:8.1e}  (tolerance {row['tolerance']:g}, {row['measure']})"
        print(f"{row['model']:12} {row['quantity']:40} {deviation}")
    if beyond:
        print("\n".join(["beyond the tolerance, nothing recorded:", *beyond]), file=sys.stderr)
        return 1
    record = {
        "format": 1,
        **asdict(Provenance.now("scripts")),
        "versions": versions(),
        "fixtures": checksums,
        "rows": rows,
    }
    write_result(RECORD, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
