"""Vision transformers (Dosovitskiy et al., ICLR 2021): B/16 as DL4ALL uses it, and a small one with a convolutional stem."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.architectures.network import Features


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after a layer normalisation, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.queries_keys_values, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.projection(attended))
        return x + self.dropout(self.perceptron(self.norm2(x)))


class VisionTransformer(nn.Module):
    """A transformer; heads see the layer-normed class token, and the other tokens are the features by place.

    Args:
        side: side of the input in px; fixed, because positions are learned.
        token_side: side in px of the square of the input that becomes one token; the paper's patch size.
        width: dimension of a token.
        depth: number of blocks.
        heads: attention heads.
        hidden: width of the perceptrons.
        dropout: share dropped in training.
        convolutional_stem: 3x3 convolutions of stride 2 instead of one large one (Xiao et al., NeurIPS 2021), which small data need.
    """

    def __init__(
        self, side: int, token_side: int, width: int, depth: int, heads: int, hidden: int, dropout: float = 0.1, *, convolutional_stem: bool = False
    ) -> None:
        super().__init__()
        if side % token_side:
            raise ValueError(f"the side of {side} px is not a multiple of the token's {token_side} px")
        self.channels = width
        self.grid = side // token_side
        self.stem = _convolutional_stem(token_side, width) if convolutional_stem else nn.Conv2d(3, width, token_side, token_side)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, self.grid**2 + 1, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Features:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = self.norm(self.blocks(self.dropout(tokens + self.positions)))
        return Features(tokens[:, 0], tokens[:, 1:].unflatten(1, (self.grid, self.grid)))


def vit_b16(side: int = 384) -> VisionTransformer:
    """ViT-B/16: 768 wide, 12 blocks, 12 heads; 577 tokens at 384 px."""
    return VisionTransformer(side, 16, 768, 12, 12, 3072)


def vit_small(side: int = 128, width: int = 128, depth: int = 6) -> VisionTransformer:
    """A small transformer with a convolutional stem, for 128 px and two cores."""
    return VisionTransformer(side, 16, width, depth, max(1, width // 32), 4 * width, convolutional_stem=True)


def _convolutional_stem(token_side: int, width: int) -> nn.Sequential:
    halvings = token_side.bit_length() - 1
    layers: list[nn.Module] = []
    channels = 3
    for step in range(halvings):
        out = max(8, width >> (halvings - 1 - step))
        layers += [nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))
