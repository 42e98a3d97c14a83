"""04_gpt2, gpt2.py: the whole model, against transformers' GPT2LMHeadModel with the same weights.

Tolerances. Logits and loss, which are of the order of 1: 2e-6 in float32, 1e-13 in float64. Gradients, relative to the
largest of their tensor: 1e-5 in float32, 1e-12 in float64. At the full size of 124 million: 2e-5 and 1e-4 in float32.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glassbox.attention import KVCache
from glassbox.gpt2 import GPT, MLP, PRESETS, Block, GPTConfig, initialise
from test_attention import TYPES, furthest, numbers
from transformers import GPT2Config, GPT2LMHeadModel

LOGITS = {torch.float32: 2e-6, torch.float64: 1e-13}
GRADIENTS = {torch.float32: 1e-5, torch.float64: 1e-12}
CONFIGS = [
    GPTConfig(vocab_size=50, block_size=16, n_layer=1, n_head=1, n_embd=8),
    GPTConfig(vocab_size=101, block_size=33, n_layer=3, n_head=4, n_embd=32),
    GPTConfig(vocab_size=67, block_size=20, n_layer=2, n_head=5, n_embd=60, tied=False),
    GPTConfig(vocab_size=300, block_size=64, n_layer=6, n_head=2, n_embd=24),
]
EACH = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.n_layer} x {c.n_embd}")
TINY = CONFIGS[0]


def reference(config: GPTConfig, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Any:
    """transformers' model of this configuration, freshly initialised."""
    torch.manual_seed(3)
    sizes = {name: getattr(config, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    dropout = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), config.dropout)
    theirs = GPT2Config(
        **sizes,
        **dropout,
        n_positions=config.block_size,
        tie_word_embeddings=config.tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    theirs._attn_implementation = attention
    model: Any = GPT2LMHeadModel(theirs)
    return model.to(dtype)


def renamed(state: dict[str, torch.Tensor], config: GPTConfig) -> dict[str, torch.Tensor]:
    """Their state or gradients under our names and in our shapes: no prefix, linear weights turned round."""
    state = {name.removeprefix("transformer."): part for name, part in state.items()}
    if config.tied:
        state.pop("lm_head.weight", None)
    return {name: part.T if part.ndim == 2 and name.startswith("h.") else part for name, part in state.items()}


def pair(config: GPTConfig, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> tuple[GPT, Any]:
    """Ours and theirs with the same weights, none of them 0 or 1 throughout, and so large that every part matters."""
    theirs, ours = reference(config, attention, dtype), GPT(config).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    ours.load_state_dict(renamed(theirs.state_dict(), config))
    return ours, theirs


def batch(config: GPTConfig, B: int = 2, T: int | None = None, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (B, T or config.block_size), generator=generator)


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each next token."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: part.grad for name, part in model.named_parameters()}


def size(x: torch.Tensor) -> float:
    """The largest number, 1 at least."""
    return max(1.0, float(x.detach().abs().max()))


def apart(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference of two sets of tensors with the same names, each relative to its largest number."""
    assert found.keys() == wanted.keys()
    return max(
        furthest([found[name] / wanted[name].abs().max()], [part / part.abs().max()]) for name, part in wanted.items()
    )


# --- the same as transformers' ---


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", PRESETS)
def test_names_and_shapes_are_gpt2s(name: str, tied: bool) -> None:
    config = GPTConfig.preset(name, tied=tied)
    with torch.device("meta"):
        ours, theirs = GPT(config).state_dict(), renamed(reference(config).state_dict(), config)
    assert {name: part.shape for name, part in ours.items()} == {name: part.shape for name, part in theirs.items()}
    assert ("lm_head.weight" in ours) is not tied


@TYPES
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@EACH
def test_logits_loss_and_gradients_are_transformers(config: GPTConfig, attention: str, dtype: torch.dtype) -> None:
    ours, theirs = pair(config, attention, dtype)
    for T in (config.block_size, 2):
        ids = batch(config, 3, T)
        found, wanted = ours(ids), theirs(ids, labels=ids)
        assert furthest([found], [wanted.logits]) <= LOGITS[dtype] * size(wanted.logits)
        losses = loss_of(found, ids), loss_of(wanted.logits, ids)
        assert furthest(losses[:1], losses[1:]) <= LOGITS[dtype] * max(1.0, losses[1].item())
        assert furthest(losses[:1], [wanted.loss]) <= 1e-6 * max(1.0, losses[1].item())  # float32, whatever comes
        for model, loss in zip((ours, theirs), losses, strict=True):
            model.zero_grad()
            loss.backward()
        assert apart(gradients_of(ours), renamed(gradients_of(theirs), config)) <= GRADIENTS[dtype]
        assert (ours.lm_head is None) == config.tied == ("lm_head.weight" not in gradients_of(ours))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@EACH
def test_dropout_draws_the_same_masks(config: GPTConfig, attention: str) -> None:
    """Embeddings, attention's weights, its result, the MLP's: drawn in the same order, from the same seed.

    So it is where attention with dropout is no fused kernel, as on a CPU. A GPU's kernel draws in its own way.
    """
    config = GPTConfig(**{**vars(config), "dropout": 0.3})
    ours, theirs = pair(config, attention, torch.float64)
    ids, results = batch(config), []
    for model in (ours, theirs):
        assert model.training or model.train()
        torch.manual_seed(11)
        results.append(model(ids) if model is ours else model(ids).logits)
        loss_of(results[-1], ids).backward()
    assert furthest(results[:1], results[1:]) <= LOGITS[torch.float64] * size(results[1])
    assert apart(gradients_of(ours), renamed(gradients_of(theirs), config)) <= GRADIENTS[torch.float64]
    torch.manual_seed(12)
    assert furthest([ours(ids)], results[:1]) > 1e-3  # another seed, other masks
    assert furthest([ours.eval()(ids)], [theirs.eval()(ids).logits]) <= 1e-12


@pytest.mark.full_size
def test_all_124_million() -> None:
    config = GPTConfig()
    theirs = reference(config)
    with torch.device("meta"):
        ours = GPT(config)
    state = renamed(theirs.state_dict(), config)  # the same memory: one copy of the weights serves both
    ours.load_state_dict({name: torch.nn.Parameter(part) for name, part in state.items()}, assign=True)
    assert sum(p.numel() for p in ours.parameters()) == 124_439_808
    ids = batch(config, 1, 64)
    wanted = theirs(ids, labels=ids)
    logits = ours(ids)
    assert furthest([logits], [wanted.logits]) <= 2e-5
    loss = loss_of(logits, ids)
    assert furthest([loss], [wanted.loss]) <= 2e-5
    loss.backward()
    wanted.loss.backward()
    assert apart(gradients_of(ours), renamed(gradients_of(theirs), config)) <= 1e-4
    del wanted, logits, loss
    with torch.no_grad():
        ids = batch(config, 1, 1024)
        last = slice(-8, None)
        assert furthest([ours.head(ours.features(ids)[:, last])], [theirs(ids, logits_to_keep=8).logits]) <= 2e-5


# --- how it begins ---


def test_it_begins_as_transformers_does() -> None:
    """The same deviations, tensor by tensor, within four standard errors; what is constant is the same constant."""
    config = GPTConfig(vocab_size=500, block_size=100, n_layer=4, n_head=2, n_embd=64, tied=False)
    torch.manual_seed(5)
    ours, theirs = GPT(config).state_dict(), renamed(reference(config).state_dict(), config)
    for name, part in ours.items():
        if part.ndim == 1:
            assert torch.equal(part, theirs[name])
            continue
        wanted = 0.02 / math.sqrt(8) if name.endswith("c_proj.weight") else 0.02
        for side in (part, theirs[name]):
            assert abs(side.std().item() / wanted - 1) <= 4 / math.sqrt(2 * side.numel())
            assert abs(side.mean().item()) <= 4 * wanted / math.sqrt(side.numel())


def test_initialise_begins_anew_from_anywhere() -> None:
    model: Any = GPT(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    initialise(model)
    assert torch.equal(model.ln_f.weight, torch.ones(8))
    assert torch.equal(model.h[0].attn.c_attn.bias, torch.zeros(24))
    assert all(p.abs().max() <= 1 for p in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_the_first_loss_is_that_of_a_guess(tied: bool) -> None:
    """Near ln V: nothing is preferred yet."""
    torch.manual_seed(0)
    config = GPTConfig.preset("tales", tied=tied)
    ids = batch(config, 2, 256)
    assert abs(loss_of(GPT(config)(ids), ids).item() - math.log(2048)) < 0.05


# --- its parts ---


def test_a_block_is_its_parts_added_to_the_stream() -> None:
    torch.manual_seed(0)
    block, x = Block(CONFIGS[1]).double(), numbers(2, 7, 32)
    middle = x + block.attn(block.ln_1(x))
    assert torch.equal(block(x), middle + block.mlp(block.ln_2(middle)))
    for part in (block.attn.c_proj, block.mlp.c_proj):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    assert torch.equal(block(x), x)  # what adds nothing lets the stream through


def test_mlp_by_hand() -> None:
    torch.manual_seed(0)
    mlp, x = MLP(6).double(), numbers(2, 3, 6)
    inside = F.gelu(x @ mlp.c_fc.weight.T + mlp.c_fc.bias, approximate="tanh")
    assert inside.shape == (2, 3, 24)
    assert furthest([mlp(x)], [inside @ mlp.c_proj.weight.T + mlp.c_proj.bias]) <= 1e-14
    assert torch.equal(MLP(6, dropout=1.0)(x.float()), torch.zeros(2, 3, 6))


def test_no_token_sees_a_later_one() -> None:
    model, _ = pair(CONFIGS[1], dtype=torch.float64)
    ids = batch(CONFIGS[1])
    other = ids.clone()
    other[:, 20] = (other[:, 20] + 1) % CONFIGS[1].vocab_size
    same = (model(ids) == model(other)).all(-1)
    assert same[:, :20].all()
    assert not same[:, 20:].any()


def test_head_and_features_are_forward() -> None:
    for config in CONFIGS[1:3]:
        model, _ = pair(config)
        ids = batch(config)
        features = model.features(ids)
        assert features.shape == (2, config.block_size, config.n_embd)
        assert torch.equal(model.head(features), model(ids))
        assert furthest([model.head(features[0, 3])], [model(ids)[0, 3]]) <= 1e-5
        table = model.wte.weight if model.lm_head is None else model.lm_head.weight
        assert furthest([features @ table.T], [model(ids)]) <= 1e-5


# --- caches ---


@EACH
@pytest.mark.parametrize("lengths", [[7], [1] * 7, [3, 4], [4, 1, 2], [6, 1]], ids=str)
def test_caches_change_nothing_however_the_text_is_cut(config: GPTConfig, lengths: list[int]) -> None:
    model, _ = pair(config, dtype=torch.float64)
    ids = batch(config, 2, 7)
    with torch.no_grad():
        wanted = model(ids)
        for caches in (model.new_caches(), model.new_caches(7)):
            found = torch.cat([model(part, caches) for part in ids.split(lengths, dim=1)], dim=1)
            assert furthest([found], [wanted]) <= 1e-12
            assert [cache.length for cache in caches] == [7] * config.n_layer
            for cache in caches:
                cache.reset()
            assert furthest([model(ids[:1], caches)], [wanted[:1]]) <= 1e-12  # another batch after a reset


def held(model: GPT, B: int = 2, T: int = 3) -> list[KVCache]:
    caches = model.new_caches()
    with torch.no_grad():
        model.features(batch(model.config, B, T), caches)
    return caches


def other(**changes: Any) -> list[KVCache]:
    return held(GPT(GPTConfig(**{**vars(CONFIGS[1]), **changes})))


def uneven(caches: list[KVCache]) -> list[KVCache]:
    k = torch.zeros(2, 4, 1, 8)
    caches[0].append(k, k)
    return caches


BAD_CACHES: dict[str, tuple[Callable[[GPT], Any], type[Exception], str]] = {
    "of fewer layers": (lambda m: other(n_layer=2), ValueError, r"2 caches for n_layer = 3 blocks.*new_caches\(\)"),
    "of more layers": (lambda m: other(n_layer=4), ValueError, "4 caches for n_layer = 3"),
    "none": (lambda m: [], ValueError, "0 caches for n_layer = 3"),
    "one for all": (lambda m: m.new_caches()[:1] * 3, ValueError, "1 caches for n_layer = 3"),
    "not a list": (lambda m: KVCache(8), TypeError, "list of KVCache, one for each block"),
    "not caches": (lambda m: [None] * 3, TypeError, "list of KVCache"),
    "tensors": (lambda m: torch.zeros(3), TypeError, "list of KVCache"),
    "other heads": (lambda m: other(n_head=8), ValueError, "cache 0 holds n_head 8, this call has 4"),
    "other head size": (lambda m: other(n_embd=16), ValueError, "cache 0 holds head size 4, this call has 8"),
    "other batch": (lambda m: held(m, B=3), ValueError, "cache 0 holds batch size 3, this call has 2.*new_caches"),
    "other type": (
        lambda m: held(copy.deepcopy(m).double()),
        ValueError,
        r"cache 0 holds type torch.float64, this call has torch.float32",
    ),
    "other place": (
        lambda m: held_on_meta(m),
        ValueError,
        "cache 0 holds device meta, this call has cpu",
    ),
    "the last of another": (lambda m: [*held(m)[:2], other(n_head=8)[2]], ValueError, "cache 2 holds n_head 8"),
    "interrupted": (lambda m: uneven(held(m)), ValueError, r"hold \[4, 3, 3\] tokens, not all the same"),
    "full": (lambda m: held(m, T=32), ValueError, "2 tokens after 32 before them are more than block_size=33"),
    "too small": (lambda m: m.new_caches(1), ValueError, "2 tokens are more than block_size=1"),
}


def held_on_meta(model: GPT) -> list[KVCache]:
    caches = model.new_caches()
    for cache in caches:
        k = torch.empty(2, 4, 1, 8, device="meta")
        cache.append(k, k)
    return caches


@pytest.fixture
def untouched() -> GPT:
    """A model; `forbid` makes it fail when it computes anything."""
    torch.manual_seed(0)
    return GPT(CONFIGS[1])


def forbid(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("work was done before the input was refused")

    for part in (model.wte, model.wpe, model.h[0]):
        monkeypatch.setattr(part, "forward", work)


@pytest.mark.parametrize("name", BAD_CACHES)
def test_caches_that_do_not_fit_are_refused(name: str, untouched: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    make, error, said = BAD_CACHES[name]
    caches = make(untouched)
    lengths = [cache.length for cache in caches] if isinstance(caches, list) and caches and caches[0] else None
    forbid(untouched, monkeypatch)
    with torch.no_grad(), pytest.raises(error, match=said):
        untouched.features(batch(CONFIGS[1], 2, 2), caches)
    if lengths:
        assert [cache.length for cache in caches] == lengths


def test_caches_keep_no_gradients(untouched: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    caches, ids = untouched.new_caches(), batch(CONFIGS[1], 2, 2)
    forbid(untouched, monkeypatch)
    with pytest.raises(ValueError, match=r"generate under torch.no_grad\(\)"):
        untouched(ids, caches)
    for part in untouched.h[1].parameters():
        part.requires_grad_(False)
    with pytest.raises(ValueError, match=r"generate under torch.no_grad\(\)"):
        untouched(ids, caches)
    assert [cache.length for cache in caches] == [0, 0, 0]
    monkeypatch.undo()
    untouched.requires_grad_(False)
    assert furthest([untouched(ids, caches)], [untouched(ids)]) <= 1e-5  # nothing wants gradients


# --- what is refused ---

IDS = batch(CONFIGS[1], 2, 5)


@pytest.mark.parametrize(
    ("ids", "error", "said"),
    [
        (torch.tensor([[0, 101]]), ValueError, "id 101 is outside 0 to 100"),
        (torch.tensor([[0, -1]]), ValueError, "id -1 is outside 0 to 100"),
        (IDS.float(), TypeError, r"not torch.float32; write ids.long\(\)"),
        (IDS.bool(), TypeError, "not torch.bool"),
        (IDS.tolist(), TypeError, r"must be a tensor, not list; write torch.tensor\(ids\)"),
        (IDS.numpy(), TypeError, "must be a tensor, not ndarray"),
        (IDS[0], ValueError, r"shape \(5,\); they must be \(B, T\): write ids\[None\]"),
        (IDS[None], ValueError, r"shape \(1, 2, 5\)"),
        (IDS[:0], ValueError, r"shape \(0, 5\)"),
        (IDS[:, :0], ValueError, r"no tokens \(T = 0\): give at least one"),
        (batch(CONFIGS[1], 1, 34), ValueError, "34 tokens are more than block_size=33"),
        (IDS.to("meta"), ValueError, "ids are on meta, the model is on cpu"),
    ],
    ids=str,
)
def test_ids_that_do_not_fit_are_refused(
    ids: Any, error: type[Exception], said: str, untouched: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(untouched, monkeypatch)
    caches = untouched.new_caches()
    with pytest.raises(error, match=said):
        untouched(ids)
    with torch.no_grad(), pytest.raises(error, match=said):
        untouched(ids, caches)
    assert [cache.length for cache in caches] == [0, 0, 0]


def test_small_ids_are_read() -> None:
    model, _ = pair(CONFIGS[1])
    assert torch.equal(model(IDS.int()), model(IDS))


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"n_head": 5}, ValueError, "n_embd = 768 cannot be cut into n_head = 5 equal heads"),
        ({"n_embd": 0}, ValueError, "n_embd must be 1 or more, not 0"),
        ({"vocab_size": -1}, ValueError, "vocab_size must be 1 or more, not -1"),
        ({"block_size": 2.0}, TypeError, "block_size must be a whole number, not 2.0"),
        ({"n_layer": 0}, ValueError, "n_layer must be 1 or more, not 0"),
        ({"n_layer": True}, TypeError, "n_layer must be a whole number, not True"),
        ({"dropout": 1.5}, ValueError, "dropout.*1.5"),
        ({"dropout": math.nan}, ValueError, "dropout.*nan"),
        ({"dropout": "0.1"}, TypeError, "dropout.*'0.1'"),
        ({"tied": 1}, TypeError, "tied must be True or False, not 1"),
        ({"n_layers": 3}, TypeError, "n_layers"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be_are_refused(changes: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        GPTConfig(**changes)
    with pytest.raises(error, match=said):
        GPTConfig.preset("gpt2", **changes)


def test_presets_and_their_changes() -> None:
    assert GPTConfig.preset("gpt2") == GPTConfig()
    assert GPTConfig.preset("gpt2-xl", dropout=0.1) == GPTConfig(n_layer=48, n_head=25, n_embd=1600, dropout=0.1)
    assert GPTConfig.preset("tiny", block_size=8).block_size == 8
    with pytest.raises(ValueError, match="no model called 'gpt3'; there are: gpt2, gpt2-medium"):
        GPTConfig.preset("gpt3")
    config = GPTConfig(*(np.uint8(size) for size in (200, 200, 2, 4, 200)))  # type: ignore[arg-type]
    assert all(type(size) is int for size in (config.vocab_size, config.block_size, config.n_embd))
    with pytest.raises(AttributeError):
        config.n_layer = 3  # type: ignore[misc]


# --- other ways to hold and run it ---


def test_copies_and_pickles_are_the_same_model() -> None:
    model, _ = pair(CONFIGS[2])
    assert pickle.loads(pickle.dumps(model.config)) == copy.deepcopy(model.config) == model.config
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(batch(CONFIGS[2])), model(batch(CONFIGS[2])))


def test_bfloat16_is_close() -> None:
    """Under autocast, also with caches, which then hold bfloat16; and with all weights rounded."""
    model, _ = pair(CONFIGS[1])
    ids = batch(CONFIGS[1])
    with torch.no_grad():
        wanted = model(ids)
        with torch.autocast("cpu", torch.bfloat16):
            caches = model.new_caches()
            found = torch.cat([model(part, caches) for part in ids.split([20, 1, 12], dim=1)], dim=1)
            assert caches[0].keys is not None
            assert caches[0].keys.dtype == torch.bfloat16
            assert furthest([found], [wanted]) <= 0.05 * size(wanted)
            assert furthest([model(ids)], [wanted]) <= 0.05 * size(wanted)
        assert furthest([model.bfloat16()(ids)], [wanted]) <= 0.05 * size(wanted)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_model_is_one_graph_for_the_compiler(backend: str) -> None:
    """Traced whole, forward and backward, with any length and with caches."""
    model, _ = pair(CONFIGS[0], dtype=torch.float64)
    ids = batch(CONFIGS[0], 2, 10)
    torch._dynamo.reset()
    traced: Any = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    for T in (10, 7) if backend == "eager" else (10,):
        wanted = torch.autograd.grad(loss_of(model(ids[:, :T]), ids[:, :T]), list(model.parameters()))
        found = torch.autograd.grad(loss_of(traced(ids[:, :T]), ids[:, :T]), list(model.parameters()))
        assert furthest(found, wanted) <= 1e-12
    with torch.no_grad():
        caches = model.new_caches()
        found = torch.cat(
            [traced(part, caches) for part in ids.split([4, 1, 5] if backend == "eager" else [10], dim=1)], dim=1
        )
        assert furthest([found], [model(ids)]) <= 1e-12
    torch._dynamo.reset()


def test_the_four_sizes_are_those_of_openai() -> None:
    """Layers and width: Radford and others (2019), table 2. Heads: the released models' hparams.json; all are of 64."""
    sizes = {
        "gpt2": (12, 12, 768),
        "gpt2-medium": (24, 16, 1024),
        "gpt2-large": (36, 20, 1280),
        "gpt2-xl": (48, 25, 1600),
    }
    for name, found in sizes.items():
        config = GPTConfig.preset(name)
        assert (config.n_layer, config.n_head, config.n_embd) == found
        assert (config.vocab_size, config.block_size, config.n_embd // config.n_head, config.tied) == (
            50257,
            1024,
            64,
            True,
        )


@pytest.mark.parametrize("wrong", ["gpt2", {"n_layer": 2}, None, 3])
def test_what_is_no_configuration_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"GPTConfig\.preset\('gpt2'\)"):
        GPT(wrong)
    with pytest.raises(ValueError, match="there is no model called"):
        GPTConfig.preset([wrong])  # pyright: ignore[reportArgumentType]


def test_sizes_of_an_mlp_do_not_overflow() -> None:
    assert MLP(np.uint8(100)).c_fc.out_features == 400  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="n_embd must be 1 or more, not 0"):
        MLP(0)
    with pytest.raises(TypeError, match="dropout"):
        MLP(8, "a")  # pyright: ignore[reportArgumentType]


def test_a_compiled_model_refuses_caches_that_do_not_belong_together() -> None:
    model, ids = GPT(CONFIGS[1]), batch(CONFIGS[1], 2, 6)
    compiled: Any = torch.compile(model, backend="eager")
    torch.compiler.reset()
    with torch.no_grad():
        caches = model.new_caches()
        first = compiled(ids[:, :5], caches)
        caches[1].reset()
        for wrong in (caches, [], caches[:1]):
            with pytest.raises(ValueError, match="caches"):
                compiled(ids[:, 5:], wrong)
        assert caches[0].length == 5
        assert torch.allclose(first, model(ids[:, :5]), atol=1e-5)


def test_caches_are_refused_where_a_block_learns_and_the_table_does_not() -> None:
    model = GPT(CONFIGS[1])
    model.wte.requires_grad_(False)
    with pytest.raises(ValueError, match="caches keep no gradients"):
        model(batch(CONFIGS[1], 1, 3), model.new_caches())
