"""Where does the normalisation stand? GPT-2's block (pre-norm) beside that of 2017 (post-norm), on equal terms.

In post-norm the sum itself is normalised, after every addition; in pre-norm only the copy that a part reads. Models of
both kinds are built here with the very same first numbers, so that nothing differs but the order of the steps. Letters:
B batch, T time, C = n_embd channels, L blocks.

Sources: Vaswani et al., Attention Is All You Need (2017); Xiong et al., On Layer Normalization in the Transformer
Architecture (2020); Liu et al., Understanding the Difficulty of Training Transformers (2020).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from glassbox.attention import KVCache
from glassbox.embeddings import check_number
from glassbox.gpt2 import GPT, Block, GPTConfig, check_call
from glassbox.ngrams import check_tokens
from glassbox.preprocessing import Ids, TokenDataset, check_ids, check_size, make_loader

__all__ = ["PostBlock", "build", "glorot", "gradient_norms", "step_effect", "train_short"]


class PostBlock(Block):
    """One layer as in 2017: add, then normalise the sum (post-norm). (B, T, n_embd) -> (B, T, n_embd).

    Its parameters are those of `Block`.
    """

    def forward(self, x: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        """Tokens look at each other, then each thinks alone; every sum is normalised before it goes on."""
        x = self.ln_1(x + self.attn(x, cache))
        return self.ln_2(x + self.mlp(x))


def glorot(model: GPT) -> None:
    """The start of 2017: matrices uniform with variance 2 / (n_in + n_out), both tables normal with variance 1 / C.

    Biases are 0, the factors of normalisations 1. Source: Xavier Glorot and Bengio (2010).
    """
    for name, parameter in model.named_parameters():
        if name in ("wte.weight", "wpe.weight"):
            nn.init.normal_(parameter, std=model.config.n_embd**-0.5)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)


def build(config: GPTConfig, order: str, seed: int = 0, start: Callable[[GPT], None] = glorot) -> GPT:
    """A fresh GPT whose normalisations stand "pre" (as in GPT-2) or "post" (as in 2017); torch's dice are seeded.

    start: what draws the first numbers; the same seed draws the same for both orders. The post-norm model has no ln_f,
    since the ln_2 of the last block stands in its place already. ValueError for another order.
    """
    seed = check_build(order, seed)
    model = GPT(config)
    if order == "post":
        model.h = nn.ModuleList(PostBlock(config) for _ in model.h)
        model.ln_f = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]  # a module, as good as a LayerNorm
    torch.manual_seed(seed)
    start(model)
    return model


@torch.enable_grad()
def gradient_norms(model: GPT, ids: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """The length of the loss's gradient in each block, all the block's parameters taken together: L numbers.

    ids and targets: (B, T). The model's own gradients are left alone. Errors as of the model, for targets too,
    and ValueError where they are not as many as the ids.
    """
    check_targets(model, ids, targets)
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten().long())
    blocks = [list(block.parameters()) for block in model.h]
    found = iter(torch.autograd.grad(loss, [p for block in blocks for p in block]))
    return [math.hypot(*(next(found).norm().item() for _ in block)) for block in blocks]


@torch.enable_grad()
def step_effect(model: GPT, ids: torch.Tensor, targets: torch.Tensor, lr: float = 1e-5) -> float:
    """How far the blocks' first step of Adam moves the features, measured by their own size. The model stays as it is.

    ids and targets: (B, T). At its first step Adam moves every number by lr, however long the gradient is. Errors as
    of gradient_norms, and TypeError or ValueError for lr. Source of the idea: Liu et al. (2020).
    """
    check_targets(model, ids, targets)
    fixed = copy.deepcopy(model).eval()  # no dropout, whose dice would move the features too
    moved = copy.deepcopy(fixed)
    optimiser = torch.optim.Adam(moved.h.parameters(), check_number("lr", lr), fused=True)
    F.cross_entropy(moved(ids).flatten(0, 1), targets.flatten().long()).backward()
    optimiser.step()
    with torch.no_grad():
        before, after = fixed.features(ids), moved.features(ids)
    return ((after - before).norm() / before.norm()).item()


@torch.enable_grad()
def train_short(
    model: GPT, ids: Ids, lr: float, warmup: int = 0, steps: int = 300, batch_size: int = 8, seed: int = 0
) -> list[float]:
    """Train on windows of a row of ids by Adam, with nothing to protect it; returns the loss of each step in nats.

    lr: the learning rate, reached in a straight line after `warmup` steps and then kept. seed: of the batches' order.
    Errors as of TokenDataset and make_loader, and TypeError or ValueError for numbers out of range and unknown ids.
    """
    lr, warmup, steps = check_plan(model, ids, lr, warmup, steps)
    optimiser = torch.optim.Adam(model.parameters(), lr, fused=True)
    batches = make_loader(TokenDataset(ids, model.config.block_size), batch_size, seed, epochs=None)
    losses: list[float] = []
    for step, (x, y) in zip(range(steps), batches, strict=False):
        optimiser.param_groups[0]["lr"] = lr * min(1, (step + 1) / max(warmup, 1))
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


# --- what is refused ---


def check_build(order: Any, seed: Any) -> int:
    """The seed as an int of 64 bits. ValueError for it, and unless the order is one of the two."""
    if not isinstance(order, str) or order not in ("pre", "post"):
        raise ValueError(f'order must be "pre" or "post", not {order!r}')
    seed = check_size("seed", seed, 0)
    if seed >= 2**64:
        raise ValueError(f"seed must be below 2 ** 64, not {seed}")
    return seed


def check_targets(model: GPT, ids: torch.Tensor, targets: torch.Tensor) -> None:
    """Errors unless the model can take the ids, and there is one known target for each of them."""
    check_call(model, ids)
    check_ids(targets, model.config.vocab_size)
    if not all(parameter.requires_grad for parameter in model.h.parameters()):
        raise ValueError("a block is frozen, so no gradient arrives there: call model.requires_grad_() first")
    if targets.shape != ids.shape:
        raise ValueError(f"targets have the shape {tuple(targets.shape)}, ids {tuple(ids.shape)}: give one for each id")


def check_plan(model: GPT, ids: Ids, lr: float, warmup: int, steps: int) -> tuple[float, int, int]:
    """The numbers as Python's own; errors for those out of range, and for ids that the model does not know."""
    check_tokens(ids, model.config.vocab_size)
    return check_number("lr", lr), check_size("warmup", warmup, 0), check_size("steps", steps, 0)
