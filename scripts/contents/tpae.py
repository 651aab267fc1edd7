"""TPAE."""

from scripts.rendering.results import Row, Runs, Table
from scripts.rendering.stacks import render_stacks

TPAE = {
    "as_published": ("the public code's losses, five blocks, native", 25),
    "native": ("three blocks, native sampling", 15),
    "downsampled": ("three blocks, downsampled", 8),
    "no_topology": ("downsampled, without the topology loss", 6),
    "no_diversity": ("downsampled, without the diversity loss", 6),
    "one_block": ("downsampled, one block", 2),
    "five_blocks": ("downsampled, five blocks", 9),
    "plain_cnn": ("a residual CNN of the size of three blocks, no maps", 15),
    "best_cpu": ("downsampled, one block, residual encoder, 45,000 pictures, 30 joint epochs", 90),
    "best_cpu_no_topology": ("the same, without the topology loss, in fp32", 126),
}

TABLES = {
    "tpae": Table(
        title="TPAE: stacked maps below a classifier",
        reading=(
            "**JPEG-recompressed** CIFAR-10, so no number here is one of CIFAR-10 itself. All rows but the last three "
            "have one short schedule: 20,000 training pictures, six passes through the whole network (of the public "
            "code and of the plain CNN: six epochs of their only phase). Means over n seeds (± standard error); "
            "metrics of maps block by block, on the test pictures. Training accuracy is taken on the first 10,000 "
            "training pictures, unaugmented. The reconstruction error is that of the last fusion decoder, which sees "
            "the picture itself; *map alone* is that of the last prototype decoder, which does not. The public “~97 % "
            "on CIFAR-10” is training accuracy: its code computes no other. An empty cell has not been run or does "
            "not exist."
        ),
        render=render_stacks,
        labels=("config", "what"),
        rows=(
            *(
                Row((f"`jpg_{name}`", what), Runs("tpae", f"jpg_{name}", ((1, 6), (3, 9)), minutes))
                for name, (what, minutes) in TPAE.items()
            ),
            Row(
                ("`jpg_best`", "`jpg_best_cpu`, 2.7 times as wide, 60 joint epochs: for a GPU"),
                Runs("tpae", "jpg_best", ((3, 9),), 1200),
            ),
        ),
    ),
}
