"""The exercises of 04_gpt2: the course's answer, the cases that try a reader's, and the mistakes known by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from glassbox import costs, layers
from glassbox.attention import CausalSelfAttention, KVCache, attention, causal_mask, merge_heads, split_heads
from glassbox.gpt2 import GPT, Block, GPTConfig, initialise
from glassbox.lab import Exercise, Finding, Mistake
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = [
    "attend_next",
    "count_parameters",
    "five_stacks",
    "layer_norm",
    "layer_norm_gradient",
]

Tensor = torch.Tensor
Kept = dict[str, Any]


def _numbers(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    """Random numbers of a given shape, the same every time."""
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- break it ---


class _Replacing(Block):
    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        x = self.attn(self.ln_1(x), cache)
        return self.mlp(self.ln_2(x))


class _NormAfter(Block):
    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        x = self.ln_1(x + self.attn(x, cache))
        return self.ln_2(x + self.mlp(x))


class _NormMissing(Block):
    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        x = x + self.attn(x, cache)
        return x + self.mlp(x)


@torch.no_grad()
def five_stacks(config: GPTConfig, x: Tensor) -> dict[str, list[float]]:
    """The size of the stream (B, T, C) after each block, in a right stack and four faulty ones, under plain names.

    The size is the mean length of a token's row. The names do not tell which is which.
    """
    kinds = {"A": _NormAfter, "B": Block, "C": _Replacing, "D": Block, "E": _NormMissing}
    found = {}
    for name, block in kinds.items():
        stack = nn.ModuleList(block(config) for _ in range(config.n_layer))
        initialise(stack)
        if name == "B":
            for parameter_name, parameter in stack.named_parameters():
                if parameter_name.endswith("c_proj.weight"):
                    parameter *= (2 * config.n_layer) ** 0.5  # as large as all the others
        stream, sizes = x, [x.norm(dim=-1).mean().item()]
        for layer in stack:
            stream = layer(stream)
            sizes.append(stream.norm(dim=-1).mean().item())
        found[f"stack {name}"] = sizes
    return found


# --- 1. layer_norm ---


def _normalised(x: Tensor, eps: float, dim: Any = -1, unbiased: bool = False) -> Tensor:
    variance = x.var(dim=dim, keepdim=True, unbiased=unbiased)
    return (x - x.mean(dim=dim, keepdim=True)) / (variance + eps).sqrt()


def _divided_by_one_less(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps, unbiased=True) * weight + bias


def _torch_std(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + eps) * weight + bias


def _eps_outside(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    root = x.var(dim=-1, keepdim=True, unbiased=False).sqrt()
    return (x - x.mean(dim=-1, keepdim=True)) / (root + eps) * weight + bias


def _no_eps(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, 0.0) * weight + bias


def _eps_fixed(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, 1e-5) * weight + bias


def _over_tokens(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps, dim=0) * weight + bias


def _over_second_axis(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps, dim=1 if x.ndim > 1 else 0) * weight + bias


def _over_everything(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps, dim=tuple(range(x.ndim))) * weight + bias


def _shifted_first(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return (_normalised(x, eps) + bias) * weight


def _swapped(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps) * bias + weight


def _no_bias(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps) * weight


def _no_weight(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps) + bias


def _neither(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps)


def _by_variance(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - x.mean(dim=-1, keepdim=True)) / (variance + eps) * weight + bias


def _squares_not_centred(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    size = ((x**2).mean(dim=-1, keepdim=True) + eps).sqrt()
    return (x - x.mean(dim=-1, keepdim=True)) / size * weight + bias


def _mean_left_in(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return x / (x.var(dim=-1, keepdim=True, unbiased=False) + eps).sqrt() * weight + bias


def _root_mean_square(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return x / ((x**2).mean(dim=-1, keepdim=True) + eps).sqrt() * weight + bias


def _absolute(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.abs().mean(dim=-1, keepdim=True) + eps) * weight + bias


def _summed(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / ((centred**2).sum(dim=-1, keepdim=True) + eps).sqrt() * weight + bias


def _root_twice(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    std = x.std(dim=-1, keepdim=True, unbiased=False)
    return (x - x.mean(dim=-1, keepdim=True)) / (std + eps).sqrt() * weight + bias


def _no_eps_one_less(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return (x - x.mean(dim=-1, keepdim=True)) / x.std(dim=-1, keepdim=True) * weight + bias


def _softmax(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return x.softmax(dim=-1) * weight + bias


def _span(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    low, high = x.amin(dim=-1, keepdim=True), x.amax(dim=-1, keepdim=True)
    return (x - x.mean(dim=-1, keepdim=True)) / (high - low + eps) * weight + bias


def _bias_taken_off(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return _normalised(x, eps) * weight - bias


def _no_return(*given: Any, **named: Any) -> None:
    list(given)


def _axis_dropped(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1)
    return centred / ((centred**2).mean(dim=-1) + eps).sqrt() * weight + bias


def _in_place(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    x -= x.mean(dim=-1, keepdim=True)
    return x / ((x**2).mean(dim=-1, keepdim=True) + eps).sqrt() * weight + bias


def _norm_alone(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return layers.layer_norm(x, weight, bias, eps).detach()


def one_token(f: Callable[..., Any]) -> Finding:
    """one token of 4 numbers, weight 1 and bias 0: how large is its result?"""
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    result = f(x, torch.ones(4), torch.zeros(4))
    if result is None:
        return Finding("None", "None: is a `return` missing?")
    result = torch.as_tensor(result)
    right = layers.layer_norm(x, torch.ones(4), torch.zeros(4))
    if result.shape != right.shape or result.isnan().any():
        said = f"a result of shape {tuple(result.shape)}: {result.tolist()}"
        return Finding(said, said)
    if torch.allclose(result, right, atol=1e-4):
        return Finding("right", "[-1.069, -0.535, 0.0, 1.604]")
    ratio = (result.norm() / right.norm()).item()
    if abs(ratio - (3 / 4) ** 0.5) < 1e-3:
        return Finding("ratio", f"all numbers are too small by {ratio:.3f}, which is √(3/4) = √((C-1)/C)")
    return Finding(f"{[round(number, 3) + 0.0 for number in result[0].tolist()]}")  # its sort: these very numbers


def nearly_constant(f: Callable[..., Any]) -> Any:
    """a token whose numbers hardly differ (here eps decides), and one whose numbers are all the same"""
    x = torch.stack([1e-3 * _numbers(6), torch.full((6,), 3.0)])
    return f(x, torch.ones(6), torch.zeros(6))


def gradient_of_the_norm(f: Callable[..., Any]) -> Finding:
    """x, weight and bias that are to be learned: does a gradient reach them?"""
    given = {
        name: x.requires_grad_()
        for name, x in (("x", _numbers(3, 4)), ("weight", _numbers(4, seed=1)), ("bias", _numbers(4, seed=2)))
    }
    try:
        result = f(*given.values())
    except RuntimeError as error:  # x.numpy() of a tensor that wants a gradient, or a leaf changed in place
        return Finding("error", f"RuntimeError: {error}")
    reached: Sequence[Tensor | None] = [None] * 3
    if isinstance(result, torch.Tensor) and result.requires_grad:
        reached = torch.autograd.grad(result.sum(), list(given.values()), allow_unused=True)
    lost = [name for name, gradient in zip(given, reached, strict=True) if gradient is None]
    return Finding("no gradient", f"no gradient reaches {', '.join(lost)}") if lost else Finding("it does")


_WEIGHT, _BIAS = 1 + _numbers(4, seed=8), _numbers(4, seed=9)
_EVERY_TOKEN = "each token is normalised by itself: mean and variance run over its own numbers, dim=-1."

layer_norm = Exercise(
    name="layer_norm",
    reference=layers.layer_norm,
    cases=[
        one_token,
        nearly_constant,
        (_numbers(3, 4) + 2, torch.ones(4), torch.zeros(4)),
        (_numbers(3, 4) + 2, _WEIGHT, _BIAS),
        (_numbers(2, 4, 4, size=5), _WEIGHT, _BIAS),
        (_numbers(2, 3, 5, 4, seed=1), _WEIGHT, _BIAS),
        (_numbers(4, seed=2), _WEIGHT, _BIAS),
        (_numbers(2, 4, seed=3), _WEIGHT, _BIAS, 0.1),
        gradient_of_the_norm,
    ],
    mistakes=[
        Mistake(_in_place, "`-=` writes into the caller's own tensor: make a new one, centred = x - mean."),
        Mistake(_divided_by_one_less, "divide by C, not by C - 1: torch's var and std need unbiased=False."),
        Mistake(_torch_std, "torch's std divides by C - 1, and eps belongs inside the root, to the variance."),
        Mistake(_eps_outside, "eps stands inside the root: (variance + eps).sqrt(), not variance.sqrt() + eps."),
        Mistake(_no_eps, "without eps a token whose numbers are all equal gives 0/0: add it to the variance."),
        Mistake(_eps_fixed, "the argument eps is not used: the caller may want another than 1e-5."),
        Mistake(_over_tokens, _EVERY_TOKEN),
        Mistake(_over_second_axis, _EVERY_TOKEN),
        Mistake(_over_everything, "mean and variance of the whole batch: " + _EVERY_TOKEN),
        Mistake(_shifted_first, "bias is added before the weight stretches: first times weight, then plus bias."),
        Mistake(_swapped, "weight and bias are swapped: weight stretches, bias shifts."),
        Mistake(_no_bias, "bias is not added."),
        Mistake(_no_weight, "weight is not used: multiply by it before you add bias."),
        Mistake(_neither, "weight and bias are not used: normal * weight + bias."),
        Mistake(_by_variance, "you divide by the variance: take its square root."),
        Mistake(_squares_not_centred, "the variance is the mean of the squares AFTER the mean is taken off."),
        Mistake(_mean_left_in, "the mean is not taken off: (x - mean) / root."),
        Mistake(_root_mean_square, "this is RMSNorm, which comes in section 8: here the mean is taken off first."),
        Mistake(_absolute, "you divide by the mean distance: the variance is the mean of the SQUARES, then the root."),
        Mistake(_summed, "the variance is a mean, not a sum: divide by C."),
        Mistake(_root_twice, "std is the root of the variance already: (variance + eps).sqrt(), one root."),
        Mistake(_no_eps_one_less, "torch's std divides by C - 1, and eps is missing: (variance + eps).sqrt()."),
        Mistake(_softmax, "softmax makes shares that sum to 1: here (x - mean) / root of the variance."),
        Mistake(_span, "you divide by the distance from smallest to largest: by the root of the variance."),
        Mistake(_bias_taken_off, "bias is taken off: add it."),
        Mistake(_no_return, "None came back: is a `return` missing?"),
        Mistake(_axis_dropped, "the mean has lost its axis: keepdim=True, so that it fits below each token."),
        Mistake(_norm_alone, "the numbers are right, but nothing can be learned: no detach, no NumPy, no no_grad."),
    ],
    hint="centred = x minus its mean over the last axis (keepdim=True); variance = mean of centred**2; then the root.",
)


# --- 2. count_parameters ---

_ODD = GPTConfig(vocab_size=101, block_size=17, n_layer=3, n_head=2, n_embd=14)  # no two parts are of one size
_CONFIGS = {
    "gpt2": GPTConfig(),
    "the odd one": _ODD,
    "the odd one, untied": dataclasses.replace(_ODD, tied=False),
    "gpt2, untied": GPTConfig(tied=False),
    "gpt2-medium": GPTConfig.preset("gpt2-medium"),
    "tales": GPTConfig.preset("tales"),
    "one block of one channel": GPTConfig(vocab_size=5, block_size=3, n_layer=1, n_head=1, n_embd=1, tied=False),
}


def _named_parts(config: GPTConfig) -> dict[str, int]:
    """What an answer may have forgotten, or have counted once too often."""
    V, T, L, C = config.vocab_size, config.block_size, config.n_layer, config.n_embd
    head = 0 if config.tied else V * C
    return {
        "wte": V * C - head,  # the head of a tied model
        "lm_head, which an untied model has,": head,
        "the table of tokens": V * C,
        "wpe": T * C,
        "the biases of all linear layers": 9 * C * L,
        "c_attn": (3 * C * C + 3 * C) * L,
        "the attention's c_proj": (C * C + C) * L,
        "c_fc": (4 * C * C + 4 * C) * L,
        "the MLP's c_proj": (4 * C * C + C) * L,
        "the matrix of c_attn": 3 * C * C * L,
        "the matrix of the attention's c_proj": C * C * L,
        "the matrix of c_fc": 4 * C * C * L,
        "4C a block (its two normalisations, the attention's biases or c_fc's)": 4 * C * L,
        "the biases of the MLP": 5 * C * L,
        "two thirds of c_attn": 2 * (C * C + C) * L,
        "three quarters of the MLP": (6 * C * C + 3 * C) * L,
        "c_attn for each further head": (3 * C * C + 3 * C) * (config.n_head - 1) * L,
        "the bias of c_attn": 3 * C * L,
        "C a block (the bias of a c_proj)": C * L,
        "2C a block (a normalisation, or biases)": 2 * C * L,
        "a quarter of the MLP's matrices": 2 * C * C * L,
        "ln_f in every block": (L - 1) * 2 * C,
        "one whole block": 12 * C * C + 13 * C,
        "a mask, which is not learned,": L * T * T,
        "ln_f": 2 * C,
        "all normalisations": 4 * C * L + 2 * C,
        "the biases of all normalisations": 2 * C * L + C,
        "the bias of the head, which has none,": config.vocab_size,
        "the blocks after the first": (L - 1) * (12 * C * C + 13 * C),
    }


_OFTEN_TOO_MANY = "wte", "the bias of the head, which has none,"


def _explained(answers: Sequence[int], configs: Sequence[GPTConfig]) -> str:
    """Which parts, counted too often or not at all, make up the differences in every configuration at once."""
    off = tuple(a - costs.count_parameters(config) for a, config in zip(answers, configs, strict=True))
    tables = [_named_parts(config) for config in configs]
    columns = {name: tuple(table[name] for table in tables) for name in tables[0]}
    for size in (1, 2, 3):
        for names in combinations(columns, size):
            for signs in product((1, -1), repeat=size):
                if any(s > 0 and n not in _OFTEN_TOO_MANY for s, n in zip(signs, names, strict=True)) and -1 in signs:
                    continue  # a part too many against one too few explains nearly everything, and means little
                pairs = list(zip(signs, names, strict=True))
                total = (sum(s * columns[n][i] for s, n in pairs) for i in range(len(configs)))
                if tuple(total) == off:
                    more = " and ".join(f"{n} once more" for s, n in pairs if s > 0)
                    less = " and ".join(n for s, n in pairs if s < 0)
                    return " and ".join(filter(None, (more, less and f"{less} not counted")))
    return ""


def what_is_missing(f: Callable[..., Any]) -> Finding:
    """gpt2 and other sizes, tied and untied: by how much is the answer too high or too low?"""
    built: list[str] = []  # what is built in the meantime
    hook = register_module_parameter_registration_hook(lambda _module, name, _parameter: built.append(name))
    try:
        with torch.device("meta"):  # whoever builds the model takes no memory for it
            answers = {name: f(config) for name, config in _CONFIGS.items()}
    finally:
        hook.remove()
    if built:
        raise AssertionError("it builds the model: count from the numbers of the config, without building")
    for name, answer in answers.items():
        if answer is None:
            raise AssertionError("it returns None: is a `return` missing?")
        if isinstance(answer, bool) or not isinstance(answer, int | float | np.integer | np.floating):
            raise AssertionError(f"for {name}: the answer is of type {type(answer).__name__}, not a whole number")
    whole = {name: round(answer) for name, answer in answers.items()}
    wrong = {name: n - costs.count_parameters(_CONFIGS[name]) for name, n in whole.items()}
    if not any(wrong.values()):
        return Finding("all right")
    name, off = next((name, off) for name, off in wrong.items() if off)
    said = f"for {name}: you are {abs(off):,} too {'high' if off > 0 else 'low'}"
    cause = _explained(list(whole.values()), list(_CONFIGS.values()))
    if not cause and not any(off for name, off in wrong.items() if name.startswith("gpt2")):
        said = f"{said}. It is right for OpenAI's sizes only: is a number of theirs written in?"
    raise AssertionError(f"{said}: that is {cause}" if cause else said)


def _count(
    config: GPTConfig,
    *,
    biases: bool = True,
    mlp_biases: bool = True,
    position: int = 1,
    norms: int = 2,
    last: bool = True,
    tied: bool | None = None,
    qkv: int = 3,
    proj: int = 1,
    wide: int = 4,
    layers: int | None = None,
    shift: int = 1,
    head_bias: bool = False,
) -> int:
    """`count_parameters` with single parts of it left out."""
    V, T, C = config.vocab_size, config.block_size, config.n_embd
    L = config.n_layer if layers is None else layers
    attn = (qkv + proj) * C * C + (qkv + proj) * C * biases
    mlp = 2 * wide * C * C + (wide + 1) * C * (biases and mlp_biases)
    head = 0 if (config.tied if tied is None else tied) else V * C
    norm = (1 + shift) * C
    return V * C + position * T * C + L * (attn + mlp + norms * norm) + last * norm + head + V * head_bias


def _head_always(config: GPTConfig) -> int:
    return _count(config, tied=False)


def _head_never(config: GPTConfig) -> int:
    return _count(config, tied=True)


def _head_turned(config: GPTConfig) -> int:
    return _count(config, tied=not config.tied)


def _no_biases(config: GPTConfig) -> int:
    return _count(config, biases=False)


def _no_mlp_biases(config: GPTConfig) -> int:
    return _count(config, mlp_biases=False)


def _no_positions(config: GPTConfig) -> int:
    return _count(config, position=0)


def _no_last_norm(config: GPTConfig) -> int:
    return _count(config, last=False)


def _one_norm(config: GPTConfig) -> int:
    return _count(config, norms=1)


def _no_norms(config: GPTConfig) -> int:
    return _count(config, norms=0, last=False)


def _norms_without_bias(config: GPTConfig) -> int:
    return _count(config, shift=0)


def _no_projection(config: GPTConfig) -> int:
    return _count(config, proj=0)


def _one_of_three(config: GPTConfig) -> int:
    return _count(config, qkv=1)


def _not_wider(config: GPTConfig) -> int:
    return _count(config, wide=1)


def _one_block(config: GPTConfig) -> int:
    return _count(config, layers=1)


def _head_with_bias(config: GPTConfig) -> int:
    return _count(config, head_bias=True)


def _for_each_head(config: GPTConfig) -> int:
    C, L = config.n_embd, config.n_layer
    return _count(config) + L * (config.n_head - 1) * (3 * C * C + 3 * C)


def _openai_positions(config: GPTConfig) -> int:
    return _count(config) + (1024 - config.block_size) * config.n_embd


def _three_times_wider(config: GPTConfig) -> int:
    return _count(config, wide=3)


def _builds_the_model(config: GPTConfig) -> int:
    return sum(parameter.numel() for parameter in GPT(config).parameters())


def _in_millions(config: GPTConfig) -> float:
    return costs.count_parameters(config) / 1e6


count_parameters = Exercise(
    name="count_parameters",
    reference=costs.count_parameters,
    cases=[what_is_missing, *((config,) for config in _CONFIGS.values() if config.n_embd < 200)],
    mistakes=[
        Mistake(_head_always, "a tied head is wte itself and has no numbers of its own: count V * C once."),
        Mistake(_head_never, "an untied model has a matrix lm_head of its own, V * C."),
        Mistake(_head_turned, "tied and untied are turned round: tied means that there is no second matrix."),
        Mistake(_no_biases, "the biases are missing: 3C, C, 4C and C in each block."),
        Mistake(_no_mlp_biases, "the biases of the MLP are missing: 4C and C in each block."),
        Mistake(_no_positions, "the table of positions, wpe, is missing: block_size rows of C."),
        Mistake(_no_last_norm, "ln_f is missing: one more normalisation stands after the last block."),
        Mistake(_one_norm, "2C a block are missing: a second normalisation, or biases (c_attn has 3C of them)."),
        Mistake(_no_norms, "the normalisations are missing: each has C weights and C biases."),
        Mistake(_norms_without_bias, "a normalisation learns two rows, weight and bias: 2C."),
        Mistake(_no_projection, "the attention's c_proj is missing: a matrix C to C, and its bias."),
        Mistake(_one_of_three, "c_attn makes queries, keys and values: C to 3C."),
        Mistake(_not_wider, "the MLP is four times as wide inside: C to 4C, and 4C to C."),
        Mistake(_one_block, "there are n_layer blocks."),
        Mistake(_head_with_bias, "GPT-2's head has no bias."),
        Mistake(_for_each_head, "the heads share one c_attn: their number does not change the count."),
        Mistake(_three_times_wider, "the MLP is four times as wide inside: C to 4C, and 4C to C, 8CC in all."),
        Mistake(_openai_positions, "right for OpenAI's four only: a number is written in, such as 1024."),
        Mistake(_builds_the_model, "count from the numbers of the config, without building."),
        Mistake(_no_return, "None came back: is a `return` missing?"),
        Mistake(_in_millions, "count the parameters themselves, not millions of them."),
    ],
    hint="one block: 3CC + 3C, CC + C, 4CC + 4C, 4CC + C, and two normalisations of 2C; then what stands around it.",
)


# --- 3. attend_next ---


def _attend_next(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    """What the attention of the first block gives for tokens that come after those in `kept`."""
    attn, T = model_attn(model), ids.shape[1]
    past = kept["k"].shape[2] if kept else 0
    x = model.wte(ids) + model.wpe(torch.arange(past, past + T))
    q, k, v = _queries(model, x)
    if kept:
        k, v = torch.cat([kept["k"], k], dim=2), torch.cat([kept["v"], v], dim=2)
    kept.update(k=k, v=v)
    return attn.c_proj(merge_heads(attention(q, k, v, causal_mask(T, past))))


def model_attn(model: GPT) -> CausalSelfAttention:
    """The attention of the first block."""
    return first_block(model).attn


def first_block(model: GPT) -> Block:
    """The first block."""
    return cast(Block, model.h[0])  # the notebook has a class Block of its own


Split = Callable[[Tensor, int], Tensor]


def _queries(model: GPT, x: Tensor, norm: bool = True, split: Split = split_heads) -> tuple[Tensor, Tensor, Tensor]:
    block = first_block(model)
    rows = block.attn.c_attn(block.ln_1(x) if norm else x)
    q, k, v = (split(part, block.attn.n_head) for part in rows.chunk(3, dim=-1))
    return q, k, v


def _reshaped(part: Tensor, n_head: int) -> Tensor:
    return part.reshape(part.shape[0], n_head, part.shape[1], -1)


def _variant(
    *,
    first: Callable[[int], int] | None = lambda past: past,
    split: Split = split_heads,
    order: tuple[int, int, int] = (0, 1, 2),
    norm: bool = True,
    join: Callable[[Tensor, Tensor], Tensor] = lambda old, new: torch.cat([old, new], dim=2),
    join_values: Callable[[Tensor, Tensor], Tensor] | None = None,
    keep: Callable[[Tensor, Tensor], Tensor] = lambda joined, new: joined,
    mask: Callable[[int, int], Tensor | None] = causal_mask,
    result: Callable[[CausalSelfAttention, Tensor], Tensor] = lambda attn, y: attn.c_proj(merge_heads(y)),
) -> Callable[[GPT, Tensor, Kept], Tensor]:
    """`_attend_next` with single steps done otherwise."""

    def attend(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
        past, T = kept.get("past", 0), ids.shape[1]
        x = model.wte(ids) + (model.wpe(torch.arange(T) + first(past)) if first else 0)
        found = _queries(model, x, norm, split)
        q, k_new, v_new = (found[i] for i in order)
        k, v = k_new, v_new
        if past:
            k, v = join(kept["k"], k_new), (join_values or join)(kept["v"], v_new)
        kept.update(k=keep(k, k_new), v=keep(v, v_new), past=past + T)
        return result(model_attn(model), attention(q, k, v, mask(T, past)))

    return attend


def _residual(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    past = kept["k"].shape[2] if kept else 0
    return model.wte(ids) + model.wpe(torch.arange(past, past + ids.shape[1])) + _attend_next(model, ids, kept)


def _cached_rows(model: GPT, ids: Tensor, kept: Kept) -> tuple[Tensor, KVCache]:
    """The stream at the new tokens, and a cache of 03 in place of keys and values."""
    cache = kept.setdefault("cache", KVCache(model.config.block_size))
    return model.wte(ids) + model.wpe(torch.arange(cache.length, cache.length + ids.shape[1])), cache


def _whole_block(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    return first_block(model)(*_cached_rows(model, ids, kept))


def _past_of_heads(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    past, T = kept["k"].shape[1] if kept else 0, ids.shape[1]
    q, k, v = _queries(model, model.wte(ids) + model.wpe(torch.arange(past, past + T)))
    if kept:
        k, v = torch.cat([kept["k"], k], dim=2), torch.cat([kept["v"], v], dim=2)
    kept.update(k=k, v=v)
    return model_attn(model).c_proj(merge_heads(attention(q, k, v, causal_mask(T, past))))


def _last_call_only(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    past, T = kept["k"].shape[2] if kept else 0, ids.shape[1]
    q, k_new, v_new = _queries(model, model.wte(ids) + model.wpe(torch.arange(past, past + T)))
    k, v = k_new, v_new
    if kept:
        k, v = torch.cat([kept["k"], k], dim=2), torch.cat([kept["v"], v], dim=2)
    kept.update(k=k_new, v=v_new)
    return model_attn(model).c_proj(merge_heads(attention(q, k, v, causal_mask(T, past))))


def _reads_all_again(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    kept["ids"] = torch.cat([kept["ids"], ids], dim=1) if kept else ids
    return _attend_next(model, kept["ids"], {})[:, -ids.shape[1] :]


def _keeps_nothing(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    return _attend_next(model, ids, {})


def _keeps_queries(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    past, T = kept["k"].shape[2] if kept else 0, ids.shape[1]
    q, k, v = _queries(model, model.wte(ids) + model.wpe(torch.arange(past, past + T)))
    if kept:
        q, k, v = (torch.cat([kept[name], new], dim=2) for name, new in (("q", q), ("k", k), ("v", v)))
    kept.update(q=q, k=k, v=v)
    return model_attn(model).c_proj(merge_heads(attention(q, k, v, causal_mask(past + T))))


def _upper_left(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    past, T = kept["k"].shape[2] if kept else 0, ids.shape[1]
    q, k, v = _queries(model, model.wte(ids) + model.wpe(torch.arange(past, past + T)))
    if kept:
        k, v = torch.cat([kept["k"], k], dim=2), torch.cat([kept["v"], v], dim=2)
    kept.update(k=k, v=v)
    attn = model_attn(model)
    return attn.c_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True)))


_ONE_CACHE: Kept = {}


def _one_for_all(model: GPT, ids: Tensor, kept: Kept) -> Tensor:
    """A cache that is no argument: it outlives its text."""
    held = _ONE_CACHE
    if held and (held["k"].shape[0] != ids.shape[0] or held["k"].shape[2] + ids.shape[1] > 8):
        held.clear()
    return _attend_next(model, ids, held)


_MODEL = GPT(
    GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=4, n_embd=8)
)  # no 2 heads: they may be written in
for _i, _parameter in enumerate(_MODEL.parameters()):
    _parameter.requires_grad_(False)
    _parameter.copy_(_numbers(*_parameter.shape, seed=_i, size=0.7) + (_parameter.ndim == 1))
_MODEL.eval()
_IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1]])


def _pieces(f: Callable[..., Any], sizes: Sequence[int], ids: Tensor = _IDS) -> list[Tensor]:
    """What f gives for the pieces of a text, one call each, all with the same `kept`."""
    kept: Kept = {}
    return [f(_MODEL, piece, kept) for piece in ids.split(list(sizes), dim=1)]


def _first_wrong(f: Callable[..., Any], sizes: Sequence[int]) -> Finding:
    found, t = _pieces(f, sizes), 0
    right = _attend_next(_MODEL, _IDS, {})
    for piece, size in zip(found, sizes, strict=True):
        if not isinstance(piece, torch.Tensor):
            said = "None: is a `return` missing?" if piece is None else f"no tensor, but of type {type(piece).__name__}"
            return Finding(said, f"the result is {said}")
        if piece.shape != (2, size, 8):
            return Finding(
                f"shape {tuple(piece.shape)} at {t}",
                f"at token {t} a result of shape {tuple(piece.shape)} for {size} new tokens, not (2, {size}, 8)",
            )
        for i in range(size):
            wrong = [row for row in range(2) if not torch.allclose(piece[row, i], right[row, t + i], atol=1e-4)]
            if wrong:
                who = "in both texts" if len(wrong) == 2 else f"in text {wrong[0]} only"
                numbers = [round(number, 2) + 0.0 for number in piece[wrong[0], i].tolist()]
                return Finding(f"{t + i} {wrong} {numbers}", f"first wrong at token {t + i}, {who}")
        t += size
    return Finding("every token right")


def all_at_once(f: Callable[..., Any]) -> Finding:
    """2 texts of 7 tokens in one call, 7 + 0: which token is the first wrong one?"""
    return _first_wrong(f, (7,))


def one_by_one(f: Callable[..., Any]) -> Finding:
    """2 texts of 7 tokens, one token a call: which is the first wrong one?"""
    return _first_wrong(f, (1,) * 7)


def three_and_four(f: Callable[..., Any]) -> Finding:
    """2 texts of 7 tokens, first 3 and then 4: which is the first wrong one?"""
    return _first_wrong(f, (3, 4))


def numbers_one_by_one(f: Callable[..., Any]) -> Any:
    """the numbers of the same, one token a call"""
    return _pieces(f, (1,) * 7)


def numbers_in_two(f: Callable[..., Any]) -> Any:
    """the numbers of the same, 3 + 4"""
    return _pieces(f, (3, 4))


def in_turns(f: Callable[..., Any]) -> Finding:
    """two texts written in turns, each with a `kept` of its own: does one disturb the other?"""
    kept: tuple[Kept, Kept] = ({}, {})
    for piece in (slice(0, 3), slice(3, 7)):
        for row in range(2):
            result = f(_MODEL, _IDS[row : row + 1, piece], kept[row])
            right = _attend_next(_MODEL, _IDS[row : row + 1, : piece.stop], {})[:, piece]
            if result.shape != right.shape or not torch.allclose(result, right, atol=1e-4):
                return Finding("disturbed", f"text {row} is wrong at its tokens {piece.start} to {piece.stop - 1}")
    return Finding("each goes its own way")


def tokens_computed(f: Callable[..., Any]) -> Finding:
    """7 tokens, one a call: how many rows go through c_attn in all?"""
    rows: list[int] = []
    hook = model_attn(_MODEL).c_attn.register_forward_hook(lambda _m, given, _y: rows.append(given[0].shape[-2]))
    try:
        _pieces(f, (1,) * 7)
    finally:
        hook.remove()
    return Finding("7 rows" if sum(rows) == 7 else f"{sum(rows)} rows")


attend_next = Exercise(
    name="attend_next",
    reference=_attend_next,
    cases=[
        all_at_once,
        one_by_one,
        three_and_four,
        numbers_one_by_one,
        numbers_in_two,
        in_turns,
        tokens_computed,
    ],
    mistakes=[
        Mistake(_variant(first=lambda past: 0), "position ids start at 0 again: the first new token stands at `past`."),
        Mistake(
            _variant(first=lambda past: past + 1), "positions are one too far: past tokens stand at 0 to past - 1."
        ),
        Mistake(
            _variant(first=lambda past: max(past - 1, 0)),
            "the first new token gets the position of the last old one: it stands at `past`.",
        ),
        Mistake(_variant(first=None), "positions are missing: model.wte(ids) + model.wpe(positions)."),
        Mistake(
            _residual, "x is added: that is what the block does with it; here the attention's own result is asked."
        ),
        Mistake(_whole_block, "this is the whole block: only its attention is asked, model.h[0].attn, of ln_1's copy."),
        Mistake(
            _variant(split=lambda part, n_head: split_heads(part, 2)),
            "the number of heads is written in: it is model.h[0].attn.n_head.",
        ),
        Mistake(_variant(split=_reshaped), "reshape mixes tokens and heads up: split_heads(part, n_head)."),
        Mistake(_variant(order=(1, 0, 2)), "the three parts of c_attn are queries, keys, values, in this order."),
        Mistake(_past_of_heads, "axis 1 of (B, nh, T, hs) counts the heads: past is the length of axis 2."),
        Mistake(_no_return, "None came back: is a `return` missing?"),
        Mistake(_variant(norm=False), "ln_1 is missing: attention reads the normalised copy of the stream."),
        Mistake(_variant(mask=lambda T, past: None), "no mask: several new tokens must not see each other's future."),
        Mistake(
            _variant(mask=lambda T, past: causal_mask(T)),
            "the mask has a column for each new token only: a column for each old one too, causal_mask(T, past).",
        ),
        Mistake(
            _variant(mask=lambda T, past: causal_mask(T, past + T)),
            "past is counted after the new tokens came in: take it before you append.",
        ),
        Mistake(
            _variant(mask=lambda T, past: causal_mask(T, past) if T == 1 else torch.ones(T, past + T).tril().bool()),
            "the triangle begins at the upper left: row t may see past + t + 1 columns, causal_mask(T, past).",
        ),
        Mistake(_upper_left, "is_causal=True begins its triangle at the upper left: give causal_mask(T, past)."),
        Mistake(
            _keeps_nothing,
            "nothing is kept: write keys and values into `kept`. `kept = ...` makes a new dictionary: use kept.update.",
        ),
        Mistake(
            _variant(keep=lambda joined, new: new),
            "cached keys are overwritten: keep the old ones and the new ones, not the new ones alone.",
        ),
        Mistake(
            _last_call_only, "cached keys are overwritten: keep old and new ones, not those of the last call alone."
        ),
        Mistake(
            _variant(join=lambda old, new: new),
            "the new tokens look at each other only: put the kept keys and values before the new ones.",
        ),
        Mistake(_variant(join_values=lambda old, new: new), "the values are not appended: keys and values, both."),
        Mistake(
            _variant(join=lambda old, new: torch.cat([new, old], dim=2)),
            "the new keys stand before the old ones: the mask counts on the order of the text.",
        ),
        Mistake(
            _variant(join=lambda old, new: torch.cat([old, new], dim=1)),
            "dim=1 holds the heads: time is axis 2 of (B, nh, T, hs).",
        ),
        Mistake(
            _variant(join=lambda old, new: torch.cat([old, new], dim=0)),
            "dim=0 holds the texts of the batch: time is axis 2 of (B, nh, T, hs).",
        ),
        Mistake(
            _variant(join=lambda old, new: torch.cat([old[:1].expand_as(old), new], dim=2)),
            "every text looks into the cache of text 0: keep the batch axis as it is.",
        ),
        Mistake(_keeps_queries, "queries need not be kept: only the new tokens ask, and only they are returned."),
        Mistake(_variant(result=lambda attn, y: merge_heads(y)), "c_proj is missing: it mixes what the heads found."),
        Mistake(_reads_all_again, "the tokens are right, but each is computed again in every call: keep k and v."),
        Mistake(_one_for_all, "one cache serves all texts: use the `kept` that is handed in, nothing else."),
    ],
    hint="past = how many tokens `kept` holds; positions past to past + T - 1; join old and new along axis 2; "
    "causal_mask(T, past).",
    tolerance=1e-4,
)


# --- 4. layer_norm_gradient ---


def _gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    stretched: bool = True,
    mean: bool = True,
    along: bool = True,
    divided: bool = True,
    over: str = "all",
    normal_in_weight: bool = True,
    mean_of_tokens: bool = False,
    sign: int = -1,
    totals: bool = False,
    by_variance: bool = False,
    weight_in: str = "",
) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm_gradient` with single steps of it left out."""
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = ((centred**2).mean(dim=-1, keepdim=True) + eps).sqrt()
    normal = centred / deviation
    g = gradient * weight if stretched else gradient
    times = x.shape[-1] if totals else 1  # sums over the channels in place of means
    dx = g - (times * g.mean(dim=-1, keepdim=True) if mean else 0)
    dx = dx + (sign * times * normal * (g * normal).mean(dim=-1, keepdim=True) if along else 0)
    axes = {"all": tuple(range(x.ndim - 1)), "first": (0,)}[over]
    dw = (g if "dw" in weight_in else gradient) * (normal if normal_in_weight else x)
    db = g if "db" in weight_in else gradient
    both = [part.mean(axes) if mean_of_tokens else part.sum(axes) for part in (dw, db)]
    return (dx / (deviation**2 if by_variance else deviation) if divided else dx), both[0], both[1]


def _wrong(**parts: Any) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def gradient(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
        return _gradient(gradient, x, weight, eps, **parts)

    return gradient


def _one_total(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    dx, dw, db = _gradient(gradient, x, weight, eps)
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = ((centred**2).mean(dim=-1, keepdim=True) + eps).sqrt()
    normal = centred / deviation
    more = (x.shape[-1] - 1) * normal * (gradient * weight * normal).mean(dim=-1, keepdim=True)
    return dx - more / deviation, dw, db


def _gradient_eps_fixed(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, ...]:
    return _gradient(gradient, x, weight, 1e-5)


def _gradient_no_eps(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, ...]:
    return _gradient(gradient, x, weight, 0.0)


def _gradient_in_place(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, ...]:
    found = _gradient(gradient, x, weight, eps)
    gradient *= weight
    return found


def _other_order(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    dx, dw, db = _gradient(gradient, x, weight, eps)
    return dx, db, dw


def _dx_alone(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    return _gradient(gradient, x, weight, eps)[0]


def _not_summed(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    centred = x - x.mean(dim=-1, keepdim=True)
    normal = centred / ((centred**2).mean(dim=-1, keepdim=True) + eps).sqrt()
    return _gradient(gradient, x, weight, eps)[0], gradient * normal, gradient


def _one_less(gradient: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    deviation = (x.var(dim=-1, keepdim=True) + eps).sqrt()
    normal = (x - x.mean(dim=-1, keepdim=True)) / deviation
    g = gradient * weight
    along = g.mean(dim=-1, keepdim=True) + normal * (g * normal).mean(dim=-1, keepdim=True)
    axes = tuple(range(x.ndim - 1))
    return (g - along) / deviation, (gradient * normal).sum(axes), gradient.sum(axes)


def nothing_along(f: Callable[..., Any]) -> Finding:
    """a result that does not change when x is shifted or stretched: is dx across both directions?"""
    x = _numbers(3, 6, seed=4)
    found = f(_numbers(3, 6), x, 1 + _numbers(6, seed=1))
    if not isinstance(found, tuple | list) or len(found) != 3:
        return Finding("not three", f"a result of type {type(found).__name__}, not three gradients")
    dx = torch.as_tensor(found[0])
    shift = dx.sum(dim=-1).abs().max().item()
    stretch = (dx * (x - x.mean(dim=-1, keepdim=True))).sum(dim=-1).abs().max().item()
    parts = {"the shift": shift, "x itself": stretch}
    faults = " and ".join(f"{name} ({size:.2f})" for name, size in parts.items() if size > 1e-3)
    if faults:
        return Finding(faults, f"dx has a part along {faults}")
    return Finding("across both")


def _tried(words: str, *given: Any) -> Callable[..., Any]:
    """A case that takes three gradients as a tuple or as a list."""

    def probe(f: Callable[..., Any]) -> Any:
        copies = [x.clone() if isinstance(x, torch.Tensor) else x for x in given]
        result = f(*copies)
        if not all(torch.equal(a, b) for a, b in zip(copies[:3], given[:3], strict=True)):
            raise AssertionError("it changes its input: make new tensors, no `*=` and no `-=`")
        return tuple(result) if isinstance(result, list) else result

    probe.__doc__ = words
    return probe


def _cases() -> Iterator[Callable[..., Any]]:
    for seed, shape in enumerate(((3, 6), (1, 4), (2, 5, 8))):
        C = shape[-1]
        given = _numbers(*shape, seed=seed), 2 * _numbers(*shape, seed=seed + 5) + 1, 1 + _numbers(C, seed=seed + 9)
        yield _tried(f"x of shape {shape}: the gradients of x, weight and bias", *given)
    given = _numbers(3, 6), 0.1 * _numbers(3, 6, seed=7), 1 + _numbers(6, seed=3), 0.1
    yield _tried("the same with a small x of shape (3, 6) and eps=0.1", *given)


layer_norm_gradient = Exercise(
    name="layer_norm_gradient",
    reference=layers.layer_norm_gradient,
    cases=[nothing_along, *_cases()],
    mistakes=[
        Mistake(_wrong(mean=False, along=False), "mean and deviation depend on x too: take off both means of g."),
        Mistake(_wrong(mean=False), "the mean of g is not taken off: every number of x moves the mean."),
        Mistake(_wrong(along=False), "the part along the normal is not taken off: x moves the deviation too."),
        Mistake(_wrong(stretched=False), "the gradient reaches the normal through weight: g = gradient * weight."),
        Mistake(_wrong(divided=False), "dx is not divided by the deviation."),
        Mistake(_wrong(over="first"), "weight and bias serve every token: sum over all axes but the last."),
        Mistake(_wrong(mean_of_tokens=True), "the gradients of weight and bias are sums over the tokens, not means."),
        Mistake(_wrong(normal_in_weight=False), "weight multiplies the normal, not x: (gradient * normal).sum."),
        Mistake(_wrong(sign=1), "the part along the normal has the wrong sign: it is taken off."),
        Mistake(_wrong(totals=True), "means over the channels are taken off, not sums: .mean(dim=-1, keepdim=True)."),
        Mistake(_one_total, "the part along the normal is a mean over the channels, not a sum: (g * normal).mean."),
        Mistake(_wrong(by_variance=True), "dx is divided by the variance: divide by the deviation, its root."),
        Mistake(_wrong(weight_in="dw"), "weight's own gradient has no weight in it: (gradient * normal).sum."),
        Mistake(_wrong(weight_in="db"), "bias stands after the weight: its gradient is gradient.sum, not g.sum."),
        Mistake(_wrong(weight_in="dw db"), "the gradients of weight and bias have no weight in them: gradient, not g."),
        Mistake(_gradient_eps_fixed, "the argument eps is not used: the caller may want another than 1e-5."),
        Mistake(_gradient_no_eps, "eps is missing: the deviation is (variance + eps).sqrt(), as in layer_norm."),
        Mistake(_gradient_in_place, "`*=` writes into the caller's own tensor: make a new one, g = gradient * weight."),
        Mistake(_no_return, "return three gradients: None came back."),
        Mistake(_other_order, "the order is x, weight, bias."),
        Mistake(_dx_alone, "return three gradients: of x, of weight and of bias."),
        Mistake(_not_summed, "weight and bias are rows of C: sum over the tokens, so that the shapes agree."),
        Mistake(_one_less, "the deviation divides by C, as in layer_norm, not by C - 1."),
    ],
    hint="g = gradient * weight; dx = (g - mean of g - normal * mean of g * normal) / deviation; the others are sums.",
    tolerance=1e-5,
)
