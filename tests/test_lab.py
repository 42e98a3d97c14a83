"""The workbench: seeds, device, guesses and the look of figures."""

import base64
import io
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from glassbox import lab

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "00_basics"


def test_everything_is_at_hand() -> None:
    assert all(hasattr(lab, name) for name in lab.__all__)
    assert lab.check.__module__ == "glassbox.checking"
    assert lab.dataset.__module__ == "glassbox.datasets"


def test_import_is_light() -> None:
    heavy = "{'torch', 'matplotlib', 'pooch', 'requests', 'tqdm'}"
    code = f"import sys, glassbox.lab; print(sorted({heavy} & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": str(HELPERS)}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "[]\n"


# --- chance and device ---


def draws() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


def test_seed_everything() -> None:
    assert lab.seed_everything() == 1337
    first = draws()
    assert lab.seed_everything(1337) == 1337
    assert draws() == first
    lab.seed_everything(np.int64(7))  # type: ignore[arg-type]
    assert not set(draws()) & set(first)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"between 0 and 2\*\*32 - 1, not {seed}"):
        lab.seed_everything(seed)


@pytest.mark.parametrize("seed", ["1", 1.5, True, None])
def test_seed_of_another_kind(seed: object) -> None:
    with pytest.raises(TypeError, match="seed must be a whole number"):
        lab.seed_everything(seed)  # type: ignore[arg-type]


def plant(monkeypatch: pytest.MonkeyPatch, cards: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Card {i}")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cards", "mps", "prefer", "device", "line"),
    [
        (0, False, None, "cpu", "the processor (cpu): torch finds no GPU here, and the course does not need one."),
        (2, False, None, "cuda:0", "Card 0 (cuda:0), the first choice here; there is also cuda:1, cpu."),
        (0, True, None, "mps", "the graphics cores of this Mac (mps), the first choice here; there is also cpu."),
        (0, False, "cpu", "cpu", "the processor (cpu), as you asked."),
        (1, False, "cpu", "cpu", "the processor (cpu), as you asked; this machine also has cuda:0."),
        (2, False, "cuda", "cuda:0", "Card 0 (cuda:0), as you asked; this machine also has cuda:1, cpu."),
        (2, False, "cuda:1", "cuda:1", "Card 1 (cuda:1), as you asked; this machine also has cuda:0, cpu."),
    ],
)
def test_pick_device(cards, mps, prefer, device, line, monkeypatch, capsys) -> None:
    plant(monkeypatch, cards, mps)
    assert lab.pick_device(prefer) == torch.device(device)
    assert capsys.readouterr().out == f"Running on {line}\n"


@pytest.mark.parametrize("prefer", ["cuda", "gpu", "cuda:2", ""])
def test_pick_device_that_is_not_here(prefer: str, monkeypatch, capsys) -> None:
    plant(monkeypatch, 0, False)
    with pytest.raises(ValueError, match=f"prefer='{prefer}' cannot be had on this machine; it has cpu$"):
        lab.pick_device(prefer)
    assert capsys.readouterr().out == ""


# --- predict first ---


@pytest.mark.parametrize(
    ("guess", "value", "unit", "says"),
    [
        (None, 4.174, "nats", "No guess made. The result: 4.174 nats."),
        (..., 124_439_808, "", "No guess made. The result: 124,439,808."),
        (3, 4.0, "nats", "Your guess: 3 nats. The result: 4 nats. You were 25 % too low.\n"),
        (5.0, 4.0, "", "You were 25 % too high."),
        (40, 4.0, "", "You were 10 times too high."),
        (1, 1000, "", "You were 1,000 times too low."),
        (None, 16_217.3, "times", "The result: 16,220 times."),
        (0.5, 16_217.3, "", "You were 32,400 times too low."),
        (None, 1.5e-7, "", "The result: 1.5e-07."),
        (4.01, 4.0, "", "Right on."),
        (0, 0, "", "Right on."),
        (-1, 2.0, "m", "You were 3 m too low."),
        (2.0, 0.0, "", "You were 2 too high."),
        ("red", "red", "", "Your guess: red. The result: red. You were right."),
        ("blue", "red", "", "Your guess: blue. The result: red.\n"),
        (np.float32(2), torch.tensor(3.0), "", "Your guess: 2. The result: 3. You were 33 % too low."),
    ],
)
def test_compare_guess(guess, value, unit, says, capsys) -> None:
    lab.compare_guess(guess, value, unit)
    assert says in capsys.readouterr().out


# --- the look of figures ---

# What a person without red or without green cones sees: Machado, Oliveira and Fernandes (2009), severity 1; linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(code: str) -> np.ndarray:
    c = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """WCAG 2: 1 for two equal colours, 21 for black on white."""
    low, high = sorted(float(linear(code) @ RGB_TO_XYZ[1]) for code in (a, b))
    return (high + 0.05) / (low + 0.05)


def cielab(rgb: np.ndarray) -> np.ndarray:
    x = RGB_TO_XYZ @ np.clip(rgb, 0, 1) / RGB_TO_XYZ.sum(axis=1)
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(codes: dict[str, str], sight: str) -> tuple[float, tuple[str, ...]]:
    seen = {name: cielab(SIGHT[sight] @ linear(code)) for name, code in codes.items()}
    pairs = itertools.combinations(seen, 2)
    return min((float(np.linalg.norm(seen[a] - seen[b])), (a, b)) for a, b in pairs)


def test_measures_of_colour() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert nearest({"a": "#ff0000", "b": "#00ff00"}, "usual")[0] > 100
    distance, pair = nearest({"red": "#c04000", "olive": "#6f6f00", "blue": "#0000ff"}, "deuteranopia")
    assert distance < 20
    assert pair == ("red", "olive")


@pytest.mark.parametrize("name", lab.COLOURS)
def test_colours_stand_out_from_the_card(name: str) -> None:
    assert contrast(lab.COLOURS[name], lab.CARD) >= 3


def test_ink_is_easy_to_read() -> None:
    assert contrast(lab.INK, lab.CARD) >= 7


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_eye(sight: str) -> None:
    distance, pair = nearest(dict(lab.COLOURS), sight)
    assert distance >= 20, f"{pair} look alike"


def draw() -> bytes:
    import matplotlib.pyplot as plt

    _, axes = plt.subplots()
    axes.plot([0, 1, 2], [3.3, 2.1, 1.7], label="loss")
    axes.set(title="Loss", xlabel="step", ylabel="loss (nats)")
    axes.legend()
    file = io.BytesIO()
    plt.savefig(file, format="png", metadata={"Software": None})
    plt.close()
    return file.getvalue()


@pytest.fixture
def drawing():
    import matplotlib

    matplotlib.use("agg")
    with matplotlib.rc_context():
        yield


def check_card(pixels: np.ndarray, width: int) -> None:
    assert pixels.shape[1] == width <= 700
    assert (pixels[..., 3:] == 1).all(), "the card must be opaque, or it is lost on a dark page"
    card = np.array([int(lab.CARD[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    for corner in (pixels[0, 0], pixels[-1, -1]):
        assert corner[:3] == pytest.approx(card, abs=1 / 255)


def test_figure(drawing: None) -> None:
    import matplotlib
    from matplotlib.image import imread

    matplotlib.rcdefaults()  # a notebook that ran before may have set the style
    plain = draw()
    lab.use_style()
    assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0] == lab.COLOURS["blue"]
    assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
    styled = draw()
    assert styled == draw()
    assert styled != plain
    pixels = imread(io.BytesIO(styled))
    check_card(pixels, width=660)


CELL = """
from glassbox.lab import use_style
use_style()
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
ax.plot([0, 1], label="a long label " * 3)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
fig.text(1.1, 0.5, "beyond the edge: must not make the stored picture wider")
plt.show()
"""


def test_figure_as_a_notebook_stores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.image import imread

    manager = pytest.importorskip("jupyter_client.manager")
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    kernel, client = manager.start_new_kernel(kernel_name="python3", startup_timeout=120)
    try:
        found: list[dict] = []
        reply = client.execute_interactive(
            CELL, timeout=120, output_hook=lambda message: found.append(message["content"])
        )
        assert reply["content"]["status"] == "ok", found
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    stored = [content["data"] for content in found if "image/png" in content.get("data", {})]
    assert len(stored) == 1
    png = base64.b64decode(stored[0]["image/png"])
    assert b"Software" not in png
    check_card(imread(io.BytesIO(png)), width=660)
