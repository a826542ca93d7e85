"""Position embeddings: rotary ones (RoPE) of tokens, sines and cosines of feature maps."""

import torch
from torch import Tensor

# Cosines and signed sines of the rotary position embedding, each [tokens, head_dim].
RotaryTable = tuple[Tensor, Tensor]


def rotary_table(positions: Tensor, head_dim: int, base: float) -> RotaryTable:
    """
    Return the rotary tables, [tokens, head_dim] each, for positions [tokens, 2] of (y, x).

    The first half of a head's channels turns with y, the second with x. In each half, channel i
    pairs with channel i + head_dim / 4 and turns by position * base ** (-4 i / head_dim). The
    sines of the first partners carry the minus sign of the rotation. In fp64, for the caller to
    round once.
    """
    quarter = head_dim // 4
    exponents = torch.arange(quarter, dtype=torch.float64, device=positions.device) / quarter
    angles = positions.to(torch.float64)[:, :, None] * base ** -exponents  # [tokens, 2, quarter]
    cosine, sine = angles.cos(), angles.sin()
    cosines = torch.stack([cosine, cosine], dim=2).flatten(1)  # [tokens, head_dim]
    sines = torch.stack([-sine, sine], dim=2).flatten(1)
    return cosines, sines


def grid_rotary_table(rows: int, columns: int, special_tokens: int, head_dim: int,
                      base: float, extent: tuple[int, int] | None = None) -> RotaryTable:
    """
    Return the rotary tables of a frame: special tokens, then patches row by row.

    Patches count from (1, 1); the special tokens stand at (0, 0), which turns nothing. extent:
    rows and columns of another grid over the same image; the patches' centres then have the
    positions that they have in that one.
    """
    patches = torch.cartesian_prod(*(
        (torch.arange(count, dtype=torch.float64) + 0.5) * (of / count) + 0.5
        for count, of in zip((rows, columns), extent or (rows, columns))))
    special = torch.zeros(special_tokens, 2, dtype=patches.dtype)
    return rotary_table(torch.cat([special, patches]), head_dim, base)


def fold_norm_into_rope(
    norms: tuple[Tensor, Tensor], rope: RotaryTable, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return the tables of `apply_folded_rope`: weight and bias of norms and RoPE in one.

    norms: as `Attention.tables` gives them. [tokens, 2, 1, head_dim] each.
    """
    weight, bias = norms
    cosines, sines = (table[:, None, None].to(weight.dtype) for table in rope)
    shift = apply_rope(bias.expand(len(cosines), -1, -1, -1), (cosines, sines))
    partner = weight.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
    return (weight * cosines).to(dtype), shift.to(dtype), (partner * sines).to(dtype)


def apply_rope(x: Tensor, table: RotaryTable) -> Tensor:
    """Return x [..., tokens, head_dim], each pair of channels rotated by its token's position."""
    cosines, sines = table
    return _add_partners(x * cosines, x, sines)


def apply_folded_rope(x: Tensor, scale: Tensor, shift: Tensor, partner: Tensor) -> Tensor:
    """Return x [..., tokens, 2, heads, head_dim], normalised, with weights and positions."""
    return _add_partners(torch.addcmul(shift, x, scale), x, partner)


def _add_partners(out: Tensor, x: Tensor, sines: Tensor) -> Tensor:
    """Add to each channel, in place, its partner times a factor."""
    # [..., axis, partner, channel]
    rotated, partners, sines = (part.unflatten(-1, (2, 2, -1)) for part in (out, x, sines))
    for one in (0, 1):
        rotated[..., one, :].addcmul_(partners[..., 1 - one, :], sines[..., one, :])
    return out


def uv_embedding(channels: int, height: int, width: int, ratio: float) -> tuple[Tensor, Tensor]:
    """
    Return the position embedding of a feature map that covers an image of this width / height.

    It is separable: [channels / 2, 1, width] for the first half of the channels and
    [channels / 2, height, 1] for the second half; fp32, already scaled by 0.1.
    """
    diagonal = (ratio ** 2 + 1) ** 0.5
    columns = _sine_cosine(channels // 2, width, ratio / diagonal)
    rows = _sine_cosine(channels // 2, height, 1 / diagonal)
    return columns[:, None, :], rows[:, :, None]


def _sine_cosine(channels: int, size: int, extent: float) -> Tensor:
    """Return sines over cosines [channels, size] of pixel centres between -extent and extent."""
    span = extent * (size - 1) / size
    positions = torch.linspace(-span, span, size, dtype=torch.float64)
    quarter = channels // 2
    rates = 100.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    angles = rates[:, None] * positions
    return (0.1 * torch.cat([angles.sin(), angles.cos()])).to(torch.float32)


def add_uv(x: Tensor, embedding: tuple[Tensor, Tensor]) -> Tensor:
    """Add a `uv_embedding` to x [..., channels, height, width] in place and return x."""
    columns, rows = embedding
    half = columns.shape[0]
    x[..., :half, :, :].add_(columns)
    x[..., half:, :, :].add_(rows)
    return x
