"""torchvision's data sets, wherever torchvision can be had."""

import torch


def import_torchvision_datasets():
    """Import and return `torchvision.datasets`, also where torch is CPU-only and torchvision is the ordinary wheel.

    In that pairing torchvision's compiled operators do not load, and `import torchvision` fails because it attaches
    Python implementations to two of them (non-maximum suppression). Declaring the two lets the import pass; they have
    no kernel and no data set uses them.
    """
    try:
        import torchvision.datasets
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        global _torchvision_declarations  # PyTorch withdraws the declarations when this object is collected
        _torchvision_declarations = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _torchvision_declarations.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets
    return torchvision.datasets
