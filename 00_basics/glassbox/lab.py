"""The workbench that every notebook uses: seed, device, exercises, guesses, data sets, plot style.

Its parts with more to say stand in files of their own and are handed on here: `check`, `ledger`, `Exercise`,
`Finding`, `Mistake`, `ExerciseError` (checking.py) and `dataset`, `DatasetError` (datasets.py). Torch and matplotlib
are imported only where they are used. The workbench prints on purpose; the helpers of the modules never do.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from glassbox.checking import Exercise, ExerciseError, Finding, Mistake, check, ledger
from glassbox.datasets import DatasetError, dataset

if TYPE_CHECKING:
    import torch

__all__ = [
    "COLOURS",
    "DatasetError",
    "Exercise",
    "ExerciseError",
    "Finding",
    "Mistake",
    "check",
    "compare_guess",
    "dataset",
    "ledger",
    "pick_device",
    "seed_everything",
    "show",
    "use_style",
]


# --- chance and device ---


def seed_everything(seed: int = 1337) -> int:
    """Seed `random`, NumPy's global generator and, where it is installed, torch on every device. Returns the seed.

    seed: a whole number from 0 to 2**32 - 1, as NumPy asks. Raises TypeError or ValueError for any other.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be a whole number such as 1337, not {seed!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie between 0 and 2**32 - 1, not {seed}")
    random.seed(int(seed))
    np.random.seed(int(seed))
    with contextlib.suppress(ModuleNotFoundError):
        import torch

        torch.manual_seed(int(seed))  # CUDA and MPS too
    return int(seed)


def pick_device(prefer: str | None = None) -> torch.device:
    """Choose where torch computes: CUDA before MPS before CPU. Prints one line that explains the choice.

    prefer: "cuda", "cuda:1", "mps" or "cpu" to decide otherwise. Raises ValueError where it is not to be had here.
    """
    import torch

    here = {"cpu": "the processor"}
    if torch.backends.mps.is_available():
        here = {"mps": "the graphics cores of this Mac", **here}
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    here = {**{f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(cards)}, **here}
    wanted = next(iter(here)) if prefer is None else f"{prefer}:0" if prefer == "cuda" else prefer
    if wanted not in here:
        raise ValueError(f"prefer={prefer!r} cannot be had on this machine; it has {', '.join(here)}")
    others = ", ".join(name for name in here if name != wanted)
    if prefer is not None:
        reason = f", as you asked{'; this machine also has ' * bool(others)}{others}"
    elif not others:
        reason = ": torch finds no GPU here, and the course does not need one"
    else:
        reason = f", the first choice here; there is also {others}"
    print(f"Running on {here[wanted]} ({wanted}){reason}.")
    return torch.device(wanted)


# --- predict first ---


def compare_guess(guess: Any, value: Any, unit: str = "") -> None:
    """Print a reader's guess beside the result. A guess of None or `...` means that none was made.

    guess, value: numbers in the same unit, or anything that can be printed; unit: its name, such as "nats".
    """
    guess, value = (x.item() if hasattr(x, "item") and getattr(x, "shape", 1) == () else x for x in (guess, value))
    unit = f" {unit}" if unit else ""
    result = f"{_digits(value)}{unit}"
    if guess is None or guess is ...:
        print(f"No guess made. The result: {result}. (Write a number in place of the dots first: it helps.)")
        return
    said = f"Your guess: {_digits(guess)}{unit}. The result: {result}."
    if not _is_number(guess) or not _is_number(value):
        print(f"{said}{' You were right.' if guess == value else ''}")
    elif abs(guess - value) <= 0.005 * abs(value):
        print(f"{said} Right on.")
    elif guess * value > 0:
        ratio = guess / value
        amount = f"{100 * abs(ratio - 1):.0f} %" if 0.5 <= ratio <= 2 else f"{_digits(max(ratio, 1 / ratio), 3)} times"
        print(f"{said} You were {amount} too {'high' if guess > value else 'low'}.")
    else:
        print(f"{said} You were {_digits(abs(guess - value))}{unit} too {'high' if guess > value else 'low'}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _digits(value: Any, digits: int = 4) -> str:
    if isinstance(value, int | np.integer) or not _is_number(value):
        return f"{value:,}" if _is_number(value) else str(value)
    rounded = f"{value:.{digits}g}"
    return f"{float(rounded):,.0f}" if "e+" in rounded and abs(value) < 1e15 else rounded  # 16,200, not 1.62e+04


# --- the look of figures ---

CARD = "#fcfbf7"  # the opaque background of every figure: readable on a white page and on a dark one
INK = "#22262b"
# The hues of Okabe and Ito's palette (2008), darkened until each stands out from the card by 3:1 or more, and moved
# apart until they differ under every common kind of colour vision (tests/test_lab.py measures both).
COLOURS = MappingProxyType(
    {
        "blue": "#2548c5",
        "orange": "#c68210",
        "green": "#148e4c",
        "red": "#a30e0a",
        "sky": "#2a96de",
        "purple": "#882e89",
        "grey": "#7a7f85",
        "black": INK,
    }
)


def use_style() -> None:
    """Give matplotlib the course's look; call it once a notebook.

    Figures are 6.6 x 3.7 inches at 100 dots: at most 700 pixels wide as stored. In a notebook they are stored as PNG
    without a date or a version, so that the same picture has the same bytes.
    """
    import matplotlib
    from cycler import cycler

    matplotlib.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": "#8b9096",
            "axes.facecolor": CARD,
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.labelsize": 11,
            "axes.prop_cycle": cycler(color=[code for name, code in COLOURS.items() if name != "grey"]),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "figure.constrained_layout.h_pad": 0.1,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.w_pad": 0.1,
            "figure.dpi": 100,
            "figure.facecolor": CARD,
            "figure.figsize": (6.6, 3.7),
            "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
            "font.size": 10.5,
            "grid.color": "#e3e1d9",
            "grid.linewidth": 0.8,
            "image.cmap": "cividis",  # made for every kind of colour vision
            "legend.facecolor": CARD,
            "legend.edgecolor": CARD,
            "legend.framealpha": 0.85,
            "lines.linewidth": 2.0,
            "patch.edgecolor": CARD,
            "savefig.dpi": "figure",
            "savefig.facecolor": CARD,
            "svg.hashsalt": "glassbox",
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    _store_plain_png()


def show() -> None:
    """Show the current figure; in a notebook as a PNG of 128 colours, which the eye cannot tell from one of four
    times the size.
    """
    import matplotlib.pyplot as plt

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        plt.show()
        return
    from IPython.display import Image as Shown
    from IPython.display import display
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    plt.gcf().savefig(full, format="png", metadata={"Software": None})
    plt.close()
    picture = Image.open(full).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    display(Shown(small.getvalue(), format="png"))


def _store_plain_png() -> None:
    """In a notebook: store figures as PNG in their own size, without the version of matplotlib in the file."""
    if "IPython" not in sys.modules:
        return
    shell = sys.modules["IPython"].get_ipython()
    if not hasattr(shell, "kernel"):  # IPython in a terminal draws in windows
        return
    import matplotlib.pyplot  # noqa: F401  first: loading it sets the notebook's figure options anew
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    from matplotlib_inline.config import InlineBackend

    options = {"bbox_inches": None, "metadata": {"Software": None}}
    inline = InlineBackend.instance(parent=shell)
    inline.figure_formats, inline.print_figure_kwargs = {"png"}, options
    set_matplotlib_formats("png", **options)
