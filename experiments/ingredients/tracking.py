"""Where a run is recorded: its run folder (always), MongoDB (when a URL is given), TensorBoard, pictures, artifacts.

Run folder: `<runs_dir>/<experiment>/<id>/` with Sacred's config.json, run.json, metrics.json and cout.txt, and ours:
`tensorboard/`, `figures/*.png`, the trainer's checkpoint.pt, and record.json and data.json at the end.
"""

import os
from io import BytesIO
from pathlib import Path

from experiments.configuration import optional, text
from experiments.errors import UserError
from experiments.files import shown, write_atomically
from experiments.observers.mongo import RunFolderMongoObserver
from experiments.observers.redaction import redact
from experiments.observers.run_folder import (
    RunFolderObserver,
    captured_output,
    check_writable,
    make_capture_safe,
    plain,
)

import numpy as np
from PIL import Image
from sacred import SETTINGS, Experiment, Ingredient
from sacred.utils import iterate_flattened

tracking = Ingredient("tracking", save_git_info=False)
tracking.add_config(
    {
        "runs_dir": "runs",  # folder of all run folders; a relative path starts at the working directory
        "mongo_url": None,  # MongoDB URL, database in its path ("sacred" if none); null: SACRED_MONGO_URL, if set
        "tensorboard": True,  # write <run folder>/tensorboard
        "figures": True,  # draw pictures, as PNG and for TensorBoard
    }
)
tracking.rules = {"tracking.runs_dir": text, "tracking.mongo_url": optional(text)}

SPRITE_PIXELS = 8192  # largest side of the projector's sheet of thumbnails that browsers load
PROJECTOR_POINTS = 2_000  # what the projector's t-SNE and UMAP handle


def configure(experiment: Experiment) -> None:
    """Set Sacred up as these observers need it; call it once, right after creating the experiment."""
    SETTINGS.CAPTURE_MODE = "sys"  # "fd" loses the last lines
    SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False  # its nvidia-smi parser can kill a run
    experiment.captured_out_filter = captured_output


def attach_observers(experiment: Experiment, config: dict) -> None:
    """Give `experiment` the observers that `config["tracking"]` asks for, in place of those it has.

    For a config hook of the experiment, which runs before anything is written.

    Raises:
        UserError: the folder for runs cannot be written, or the URL is no MongoDB URL.
    """
    folder = Path(os.path.expanduser(config["tracking"]["runs_dir"])).absolute() / experiment.path
    check_writable(folder)
    run_folder = RunFolderObserver(folder)
    observers = [run_folder]
    if url := config["tracking"]["mongo_url"] or os.environ.get("SACRED_MONGO_URL"):
        observers.append(RunFolderMongoObserver(url, run_folder))
    experiment.observers[:] = observers


class Tracker:
    """What an experiment reports to while it runs; a context manager, to be used inside the main function.

    Draws no random numbers.

    Args:
        run: Sacred's `_run`.

    Attributes:
        folder: the run folder.
    """

    def __init__(self, run):
        self.run = run
        self._run_folder = next((o for o in run.observers if isinstance(o, RunFolderObserver)), None)
        if self._run_folder is None:
            raise UserError("this run has no run folder: leave out --unobserved")
        make_capture_safe(run)
        self.folder = Path(self._run_folder.dir)
        self._draw = run.config["tracking"]["figures"]
        self._writer = None
        self._scalar_names = set()
        if run.config["tracking"]["tensorboard"]:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / "tensorboard"), flush_secs=30)

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        try:
            self.close()
        except OSError as full:  # a disk, which TensorBoard's thread has met before
            error = error or full
        self.run._get_captured_output()  # Sacred drops what a failing run printed since the last heartbeat
        if error_type is None:
            self._check()
        if isinstance(error, OSError):
            raise UserError(f"cannot write the run's files ({error}): free space, then resume") from error

    def close(self) -> None:
        """Write out and close the TensorBoard log; may be called again."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _check(self) -> None:
        if self._run_folder.error:
            raise UserError(self._run_folder.complaint())

    def scalars(self, values: dict, step: int) -> None:
        """Record named numbers (floats, 0-d tensors or arrays; NaN is allowed) as Sacred metrics and for TensorBoard.

        Raises:
            TypeError: a value is no single number.
            UserError: the run folder can no longer be written.
        """
        for name, value in _numbers(values).items():
            self.run.log_scalar(name, value, int(step))
            self._scalar_names.add(name)
            if self._writer is not None:
                self._writer.add_scalar(name, value, int(step))
        self._check()

    def figure(self, name: str, figure, step: int) -> None:
        """Store a matplotlib figure as `figures/<name>.png`, a "/" in its name as "_", and for TensorBoard.

        The PNG holds the latest version, TensorBoard all. The caller closes figures that it made with pyplot.
        """
        if not self._draw:
            return
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        path = self.folder / "figures" / f"{name.replace('/', '_')}.png"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, buffer.getvalue())
        self.artifact(path)
        if self._writer is not None:
            image = np.asarray(Image.open(buffer).convert("RGB"))
            self._writer.add_image(name, image, int(step), dataformats="HWC")

    def embedding(self, latents, labels, thumbnails, step: int = 0, name: str = "latents") -> None:
        """Show points in TensorBoard's projector; of too many, an evenly spaced part.

        Args:
            latents: tensor or array [N, D].
            labels: [N].
            thumbnails: pictures [N, C, H, W] in [0, 1], with C = 1 or 3.
        """
        if self._writer is None:
            return
        import torch

        latents, labels, thumbnails = (
            torch.as_tensor(values).detach().cpu() for values in (latents, labels, thumbnails)
        )
        height, width = thumbnails.shape[2:]
        side = max(height, width)
        most = min(PROJECTOR_POINTS, (SPRITE_PIXELS // side) ** 2)
        if len(latents) > most:
            chosen = torch.linspace(0, len(latents) - 1, most, dtype=torch.float64).round().long()
            latents, labels, thumbnails = latents[chosen], labels[chosen], thumbnails[chosen]
        square = torch.nn.functional.pad(thumbnails.float(), (0, side - width, 0, side - height))
        self._writer.add_embedding(
            latents.float().numpy(), metadata=labels.tolist(), label_img=square, global_step=int(step), tag=name
        )

    def hparams(self, config: dict, metrics: dict) -> None:
        """Show the run in TensorBoard's HParams tab: the (flat or nested) config and the final metrics."""
        if self._writer is None:
            return
        from torch.utils.tensorboard.summary import hparams

        flat = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in iterate_flattened(redact(plain(config)))
            if value is not None
        }
        numbers = _numbers(metrics)
        for summary in hparams(flat, numbers):  # not add_hparams: it opens a second run in a subfolder
            self._writer.file_writer.add_summary(summary)
        for name in numbers.keys() - self._scalar_names:
            self._writer.add_scalar(name, numbers[name], 0)

    def artifact(self, path: str | Path) -> None:
        """Keep a file with the run; one inside the run folder stays where it is, another is copied there.

        Raises:
            UserError: there is no such file, or the run folder can no longer be written.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise UserError(f"no file {shown(path)} to keep with the run")
        inside = path.is_relative_to(self.folder)
        self.run.add_artifact(str(path), name=path.relative_to(self.folder).as_posix() if inside else path.name)
        self._check()


def _numbers(values: dict) -> dict[str, float]:
    numbers = {}
    for name, value in values.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} is no single number but {type(value).__name__}") from None
    return numbers
