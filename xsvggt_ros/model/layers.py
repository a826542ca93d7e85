"""
Transformer blocks and position tables that all parts of the network share.

A block does not know what its queries attend to. It hands queries, keys and values to an `Attend`
function: plain self-attention inside a frame, a cache that remembers earlier frames, or a masked
attention over many frames at once. Leading (batch) dimensions pass through everything here.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native, onednn
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.model.fused import Linear

# Queries, keys and values [..., heads, tokens, head_dim] to the attention output of that shape.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
QK_EPS = 1e-5
# Cosines and signed sines of the rotary position embedding, each [tokens, head_dim].
RotaryTable = tuple[Tensor, Tensor]
# `kernels.qkv.split_qkv`: all of queries, keys and values in one kernel.
SplitQKV = Callable[..., tuple[Tensor, Tensor, Tensor]]
Table = TypeVar('Table')


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention of each token over all tokens of its own frame."""
    if query.dim() == 3:
        return attention(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


class LayerScale(nn.Module):
    """Multiply each channel of a branch by a learnt factor before it joins the others."""

    def __init__(self, dim: int, initial: float) -> None:
        """Start with the factor `initial` for each of `dim` channels."""
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """Return x + the scaled branch, both [..., dim]; in the precision of the factors."""
        return torch.addcmul(x, branch, self.gamma)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        """Build layers dim -> hidden -> out."""
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, out)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Return [..., out] for x [..., dim], with ``residual`` of that shape added."""
        return self.fc2(self.fc1(x, gelu=True), residual=residual)


class Attention(nn.Module):
    """Multi-head attention that leaves open what is attended to."""

    def __init__(self, dim: int, heads: int, qk_norm: bool, is_frame_block: bool = False) -> None:
        """
        Build projections of `dim` channels.

        qk_norm: normalise queries and keys per head. is_frame_block: each token attends to the
        tokens of its own frame.
        """
        super().__init__()
        self.is_frame_block = is_frame_block
        self.heads = heads
        self.head_dim = dim // heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.q_norm = nn.LayerNorm(self.head_dim, eps=QK_EPS) if qk_norm else None
        self.k_norm = nn.LayerNorm(self.head_dim, eps=QK_EPS) if qk_norm else None
        self.fused: SplitQKV | None = None  # instead of `_split`, where there are norms
        self._tables = TableCache()

    def forward(self, x: Tensor, attend: Attend, rope: RotaryTable | None = None,
                residual: Tensor | None = None) -> Tensor:
        """Return [..., tokens, dim] for x of the same shape, with ``residual`` of it added."""
        return self.project_out(attend(*self.project_qkv(x, *self.tables(rope))), residual)

    def tables(self, rope: RotaryTable | None = None) -> tuple[Tensor, ...]:
        """
        Return what `project_qkv` takes beside x.

        Weight and bias of the norms, then the positions; on a CPU one table of both, see
        `fold_norm_into_rope`, whose three parts take three operators instead of four.
        """
        if self.q_norm is None:
            return rope or ()
        if (rope is None or self.fused is not None or rope[0].device.type != 'cpu'
                or torch.is_grad_enabled() or is_traced()):
            return self._norms() + (rope or ())
        dtype = self._attention_dtype(self.qkv.dtype, len(rope[0]))
        key = *map(version, (*self._norm_weights(), *rope)), dtype
        return self._tables.get(key, lambda: fold_norm_into_rope(self._norms(), rope, dtype))

    def project_qkv(self, x: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [..., heads, tokens, head_dim] of x."""
        packed = self.qkv(x)
        if self.fused is not None and self.q_norm is not None and packed.dim() == 2:
            return self.fused(
                packed, self.heads, (self.q_norm.weight, self.q_norm.bias),
                (self.k_norm.weight, self.k_norm.bias), self.q_norm.eps, tables[2:] or None)
        return self.split_heads(packed, *tables)

    def split_heads(self, packed: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of their product. A function of tensors."""
        packed = packed.unflatten(-1, (3, self.heads, self.head_dim))
        if packed.device.type == 'cpu':
            packed = packed.to(self._attention_dtype(packed.dtype, packed.shape[-4]))
        query, key, value = packed.unbind(-3)  # [..., tokens, heads, head_dim]
        if self.q_norm is not None:
            query, key = self._place(packed, *tables).unbind(-3)
        return tuple(part.transpose(-3, -2) for part in (query, key, value))

    def _attention_dtype(self, dtype: torch.dtype, tokens: int) -> torch.dtype:
        """
        Return the precision of attention on a CPU, for projections of this one.

        fp32, in which caches are kept there; bf16 inside small frames, which saves two
        conversions. For large ones fp32 is quicker: see `onednn.attention`.
        """
        small = (self.is_frame_block and tokens < onednn.FUSED_QUERIES
                 and not torch.is_grad_enabled())
        return dtype if small and dtype == torch.bfloat16 else torch.float32

    def project_out(self, attended: Tensor, residual: Tensor | None = None) -> Tensor:
        """Project the attention output [..., heads, tokens, head_dim] to [..., tokens, dim]."""
        # One copy, if any, before the heads are joined.
        attended = attended.transpose(-3, -2).to(
            self.proj.dtype, memory_format=torch.contiguous_format)
        return self.proj(attended.flatten(-2), residual=residual)

    def _place(self, packed: Tensor, *tables: Tensor) -> Tensor:
        """
        Return queries and keys, normalised and rotated, [..., tokens, 2, heads, head_dim].

        packed: [..., tokens, 3, heads, head_dim]. The values are normalised with the others and
        left behind, which takes less than to set the others apart first.
        """
        # On a GPU the norm and RoPE stay fp32, also in a bf16 model.
        normal = F.layer_norm(packed.to(tables[0].dtype), (self.head_dim,), eps=QK_EPS)
        if len(tables) == 3:
            return apply_folded_rope(normal[..., :2, :, :], *tables)
        weight, bias, *rope = tables
        x = torch.addcmul(bias, normal[..., :2, :, :], weight)
        if rope:
            x = apply_rope(x, tuple(table[:, None, None] for table in rope))
        return x.to(packed.dtype)

    def _norms(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the norms, [2, 1, head_dim] each: queries', then keys'."""
        parts = self._norm_weights()

        def compute() -> tuple[Tensor, Tensor]:
            return tuple(torch.stack(pair)[:, None] for pair in (parts[:2], parts[2:]))

        if torch.is_grad_enabled() or is_traced():
            return compute()
        return self._tables.get(tuple(map(version, parts)), compute)

    def _norm_weights(self) -> tuple[Tensor, ...]:
        return self.q_norm.weight, self.k_norm.weight, self.q_norm.bias, self.k_norm.bias


class Block(nn.Module):
    """
    A pre-norm transformer block.

    The residual stream keeps the precision it comes in: fp32, as under autocast, while the linear
    layers may have been lowered to bf16 or fp16, or lower where `residual_stream` says so.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, *, eps: float = 1e-5,
                 qk_norm: bool = False, is_frame_block: bool = False,
                 layer_scale: float = 0.01) -> None:
        """Build a block for tokens of `dim` channels; is_frame_block: see `Attention`."""
        super().__init__()
        # A ratio may come from dividing two widths, and the product just miss a whole number.
        hidden = int(dim * mlp_ratio + 1e-6)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm, is_frame_block)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, dim)
        self.ls2 = LayerScale(dim, layer_scale)
        self._folded = False
        self._qkv_weights = native.WeightPointers(('norm1',), ('attn', 'qkv'))
        self._mlp_weights = native.WeightPointers(
            ('attn', 'proj'), ('norm2',), ('mlp', 'fc1'), ('mlp', 'fc2'))
        self._dim, self._hidden = dim, hidden
        self._lanes = TableCache(limit=2)

    @torch.no_grad()
    def fold(self) -> None:
        """
        Multiply the layer scales into the weights before them, and leave ones in their place.

        The block computes the same, to rounding, with fewer operators. Not for training, where
        the scales have gradients of their own, and not for weights that were rounded before.
        """
        pairs = (self.attn.proj, self.ls1), (self.mlp.fc2, self.ls2)
        if any(not isinstance(layer, Linear) or layer.dtype != torch.float32
               for layer, _ in pairs):
            return
        for layer, scale in pairs:
            layer.weight *= scale.gamma[:, None]
            layer.bias *= scale.gamma
            scale.gamma.fill_(1)
        self._folded = True

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        """Load weights, whose scales may be others than one."""
        self._folded = False
        super()._load_from_state_dict(*arguments, **named)

    def _suits(self, x: Tensor) -> bool:
        return x.dim() == 2 and x.shape[1] == self._dim and native.suits(x)

    @property
    def is_native(self) -> bool:
        """Return whether `native` computes what lies around the attention, in fp32 on a CPU."""
        return (native.library() is not None and self._folded
                and self._qkv_weights.pointers(self) is not None
                and self._mlp_weights.pointers(self) is not None)

    def forward(self, x: Tensor, attend: Attend = self_attention,
                rope: RotaryTable | None = None) -> Tensor:
        """Return [..., tokens, dim] for x of the same shape."""
        return self.proj_mlp(x, attend(*self.norm_qkv(x, *self.attn.tables(rope))))

    def norm_qkv(self, x: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values; tables: `Attention.tables`. A function of tensors."""
        if self._suits(x) and (not tables or len(tables) == 3 and len(tables[0]) == len(x)):
            weights = self._qkv_weights.pointers(self)
            if weights is not None:
                lanes = self._lanes.get(tables, partial(native.lanes, tables)) if tables else None
                return native.norm_qkv(x, self.attn.heads, weights, self.norm1.eps, lanes, QK_EPS)
        return self.attn.project_qkv(self.norm1(x).to(self.attn.qkv.dtype), *tables)

    def proj_mlp(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output of x and the attention output. A function of tensors."""
        if self._folded and self._suits(x) and attended.numel() == x.numel():
            weights = self._mlp_weights.pointers(self)
            if weights is not None:
                return native.proj_mlp(x, attended, self._hidden, weights, self.norm2.eps)
        dtype = self.attn.qkv.dtype
        if self._folded:
            x = self.attn.project_out(attended, residual=x)
            return self.mlp(self.norm2(x).to(dtype), residual=x)
        x = self.ls1(x, self.attn.project_out(attended))
        return self.ls2(x, self.mlp(self.norm2(x).to(dtype)))


def residual_stream(x: Tensor, dtype: torch.dtype) -> Tensor:
    """
    Return tokens in the precision in which blocks of the precision ``dtype`` add to them.

    fp32; on a CPU bf16 for blocks of bf16, which saves them four operators of seventeen: oneDNN
    adds to what it is given.
    """
    if torch.is_grad_enabled():
        return x
    if x.device.type == 'cpu' and dtype == torch.bfloat16:
        return x.to(dtype)
    return x.float() if x.dtype == torch.bfloat16 else x


def rotary_table(positions: Tensor, head_dim: int, base: float) -> RotaryTable:
    """
    Return the rotary tables for positions [tokens, 2] of (y, x).

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
    return tuple(table.to(dtype) for table in (weight * cosines, shift, partner * sines))


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


def is_traced() -> bool:
    """Return whether somebody follows what is computed: keys of tables would be nonsense then."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def version(weight: Tensor) -> tuple:
    """
    Return a key for tables that are computed from a weight, which changes whenever it does.

    The weight itself (compared by identity) is in the key so that it lives as long as the table:
    a new weight could be put where it was, with the same version.
    """
    writes = -1 if weight.is_inference() else weight._version  # grows with every write
    return weight, weight.device, weight.dtype, weight.data_ptr(), writes


class TableCache:
    """
    The few tables used last, each computed once for its key.

    Tables are ordinary tensors outside the state dict. A key must name everything the table was
    computed from (frame size, device, precision, version of a weight), so that none gets stale.
    """

    def __init__(self, limit: int = 4) -> None:
        """Keep at most `limit` tables; a stream has one frame size."""
        self._limit = limit
        self._tables: OrderedDict[Hashable, object] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Table]) -> Table:
        """Return the table for `key`, computing it if it is not there."""
        if key not in self._tables:
            # A table made in inference mode could never be part of a training step.
            with torch.inference_mode(False), torch.no_grad():
                self._tables[key] = compute()
            if len(self._tables) > self._limit:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]
