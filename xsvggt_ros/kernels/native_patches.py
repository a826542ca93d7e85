"""The patches of one image to tokens in one call of C++, the image's normalisation included."""

import torch
from torch import Tensor

from xsvggt_ros.kernels import native


def patches(
    image: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None,
) -> Tensor | None:
    """
    Return tokens [1, patches, dim] of image * scale + shift, or None if C++ is not for them.

    image: [1, 3, H, W], whole patches; scale, shift: [3, 1, 1]; weight: [dim, 3, side, side].
    """
    dim, _, side, _ = weight.shape
    if (image.dim() != 4 or len(image) != 1 or bias is None or not native.suits(image)
            or not native.small((scale, shift, weight, bias))):
        return None
    rows, columns = image.shape[2] // side, image.shape[3] // side
    if (rows * side, columns * side) != image.shape[2:]:
        return None
    out = image.new_empty(1, rows * columns, dim)
    native.called().xsvggt_patches(
        torch.get_num_threads(), rows, columns, side, dim, image.data_ptr(), scale.data_ptr(),
        shift.data_ptr(), weight.data_ptr(), bias.data_ptr(), out.data_ptr())
    return out
