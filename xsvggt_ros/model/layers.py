"""
Transformer blocks that all parts of the network share.

A block does not know what its queries attend to. It hands queries, keys and values to an `Attend`
function: plain self-attention inside a frame, a cache that remembers earlier frames, or a masked
attention over many frames at once. Leading (batch) dimensions pass through everything here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn, Tensor
import torch.nn.functional as F

from xsvggt_ros.kernels import native, native_heads, onednn
from xsvggt_ros.kernels.attention import attention
from xsvggt_ros.model.fused import Linear
from xsvggt_ros.model.positions import (
    apply_folded_rope,
    apply_rope,
    fold_norm_into_rope,
    RotaryTable,
)
from xsvggt_ros.model.tables import is_traced, TableCache, version

# Queries, keys and values [..., heads, tokens, head_dim] to the attention output of that shape.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
QK_EPS = 1e-5
# `kernels.qkv.split_qkv`: all of queries, keys and values in one kernel.
SplitQKV = Callable[..., tuple[Tensor, Tensor, Tensor]]


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention of queries [..., t, d] over keys and values [..., n, d]."""
    if query.dim() == 3:
        return attention(query, key, value)
    if query.dim() == 4 and query.dtype == torch.bfloat16 and len(query) == 1:
        return attention(query[0], key[0], value[0])[None]
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
        self.table_cache = TableCache()

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
        if self._modules.get('q_norm') is None:
            return rope or ()
        if (rope is None or self.fused is not None or rope[0].device.type != 'cpu'
                or torch.is_grad_enabled() or is_traced()):
            return self.norms() + (rope or ())
        dtype = self._attention_dtype(self.qkv.dtype, len(rope[0]))
        key = *map(version, (*self.norm_weights(), *rope)), dtype
        return self.table_cache.get(key, lambda: fold_norm_into_rope(self.norms(), rope, dtype))

    def project_qkv(self, x: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [..., heads, tokens, head_dim] of x."""
        packed = self.qkv(x)
        if (self.fused is not None and self.q_norm is not None and self.k_norm is not None
                and packed.dim() == 2):
            return self.fused(
                packed, self.heads, (self.q_norm.weight, self.q_norm.bias),
                (self.k_norm.weight, self.k_norm.bias), self.q_norm.eps, tables[2:] or None)
        return self.split_heads(packed, *tables)

    def split_heads(self, packed: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of their product. A function of tensors."""
        if native_heads.takes(packed, self.heads, tables):
            placed = native_heads.place_heads(packed, self.heads, QK_EPS, *tables)
            query, key, value = placed.permute(1, 2, 0, 3).unbind()
            return query, key, value
        packed = packed.unflatten(-1, (3, self.heads, self.head_dim))
        if packed.device.type == 'cpu':
            packed = packed.to(self._attention_dtype(packed.dtype, packed.shape[-4]))
        query, key, value = packed.unbind(-3)  # [..., tokens, heads, head_dim]
        if self.q_norm is not None:
            query, key = self._place(packed, *tables).unbind(-3)
        return query.transpose(-3, -2), key.transpose(-3, -2), value.transpose(-3, -2)

    def _attention_dtype(self, dtype: torch.dtype, tokens: int) -> torch.dtype:
        """
        Return the precision of attention on a CPU, for projections of this one.

        fp32, in which caches are kept there; bf16 inside frames, which saves two conversions,
        where it is quicker: for large frames only by `native_heads.attend`.
        """
        if (not self.is_frame_block or dtype != torch.bfloat16 or torch.is_grad_enabled()
                or not (tokens < onednn.FUSED_QUERIES or native_heads.attends(self.head_dim))):
            return torch.float32
        return dtype

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
            cosines, sines = rope
            x = apply_rope(x, (cosines[:, None, None], sines[:, None, None]))
        return x.to(packed.dtype)

    def norms(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the norms, [2, 1, head_dim] each: queries', then keys'."""
        parts = self.norm_weights()

        def compute() -> tuple[Tensor, Tensor]:
            return torch.stack(parts[:2])[:, None], torch.stack(parts[2:])[:, None]

        if torch.is_grad_enabled() or is_traced():
            return compute()
        return self.table_cache.get(tuple(map(version, parts)), compute)

    def norm_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of the queries' and the keys' norm, then the biases, if any."""
        norms = self._modules  # what `self.q_norm` looks through, at a tenth of its time
        query, key = norms.get('q_norm'), norms.get('k_norm')
        if query is None or key is None:
            return ()
        parts = [norm._parameters[name] for name in ('weight', 'bias') for norm in (query, key)]
        return tuple(part for part in parts if part is not None)


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
        self._dim, self._heads, self._hidden = dim, heads, hidden
        self._lanes = TableCache(limit=2)

    @torch.no_grad()
    def fold(self) -> None:
        """
        Multiply the layer scales into the weights before them, and leave ones in their place.

        The block computes the same, to rounding, with fewer operators. Not for training, where
        the scales have gradients of their own, and not for weights that were rounded before.
        """
        if self._folded:
            return
        pairs = (self.attn.proj, self.ls1), (self.mlp.fc2, self.ls2)
        if any(not isinstance(layer, Linear) or layer.dtype != torch.float32
               for layer, _ in pairs):
            return
        for layer, scale in pairs:
            layer.weight.mul_(scale.gamma[:, None])
            layer.bias.mul_(scale.gamma)
            scale.gamma.fill_(1)
        self._folded = True

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        """Load weights, whose scales may be others than one."""
        self._folded = False
        super()._load_from_state_dict(*arguments, **named)

    def _suits(self, x: Tensor) -> bool:
        return x.dim() == 2 and x.shape[1] == self._dim and native.suits(x)

    @property
    def is_folded(self) -> bool:
        """Return whether the layer scales are in the weights: see `fold`."""
        return self._folded

    @property
    def is_native(self) -> bool:
        """Return whether `native` computes what lies around the attention, in fp32 on a CPU."""
        return (native.library() is not None and self._folded
                and self._qkv_weights.pointers(self) is not None
                and self._mlp_weights.pointers(self) is not None)

    def forward(
        self, x: Tensor, attend: Attend = self_attention, rope: RotaryTable | None = None,
        lanes: Tensor | None = None,
    ) -> Tensor:
        """
        Return [..., tokens, dim] for x of the same shape.

        lanes: norms and positions in one, as `native.lanes` gives them, if they are known.
        """
        if self._suits(x):
            known, table = self._native_table(x, rope, lanes)
            weights = self._qkv_weights.pointers(self) if known else None
            if weights is not None:
                return self._forward_natively(x, attend, weights, table)
        return self.proj_mlp(x, attend(*self.norm_qkv(x, *self.attn.tables(rope))))

    def _native_table(
        self, x: Tensor, rope: RotaryTable | None, lanes: Tensor | None,
    ) -> tuple[bool, Tensor | None]:
        """Return whether `native` takes norms and positions, and its table if there are any."""
        if lanes is not None:
            return True, lanes
        return self._lanes_of(x, *self.attn.tables(rope))

    def _lanes_of(self, x: Tensor, *tables: Tensor) -> tuple[bool, Tensor | None]:
        if not tables:
            return True, None
        if len(tables) != 3 or len(tables[0]) != len(x):
            return False, None
        key = *map(id, tables), *tables
        return True, self._lanes.get(key, lambda: native.lanes(*tables))

    def _forward_natively(
        self, x: Tensor, attend: Attend, weights: list[int], table: Tensor | None,
    ) -> Tensor:
        rest = self._mlp_weights.pointers(self) if self._folded else None
        heads, eps = self._heads, self.norm1.eps
        if rest is not None and attend is self_attention and native.takes_block(x):
            return native.block(x, heads, self._hidden, weights, eps, table, QK_EPS, rest,
                                self.norm2.eps)
        attended = attend(*native.norm_qkv(x, heads, weights, eps, table, QK_EPS))
        if rest is not None and attended.numel() == x.numel():
            return native.proj_mlp(x, attended, self._hidden, rest, self.norm2.eps)
        return self.proj_mlp(x, attended)

    def norm_qkv(self, x: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values; tables: `Attention.tables`. A function of tensors."""
        if self._suits(x):
            known, table = self._lanes_of(x, *tables)
            weights = self._qkv_weights.pointers(self) if known else None
            if weights is not None:
                return native.norm_qkv(x, self._heads, weights, self.norm1.eps, table, QK_EPS)
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
