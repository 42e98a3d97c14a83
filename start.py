"""Glass Box: sets the course up and opens it.

usage: python start.py [verb] [arguments]

  (no verb)     set up, make working copies under my/, open JupyterLab at the first notebook
                --no-browser (or GLASSBOX_NO_BROWSER=1) only serves it; --port=N chooses the port
  test          set up and pass every test and every notebook; further arguments go to pytest
  run           execute the whole course headless, in order, and print a table; names choose notebooks
  notebooks     execute the shipped notebooks in place, byte-stable; --measure renews timed cells too;
                names choose notebooks
  progress      say which exercises of your working copies are solved
  chat          talk to the course's model on a page of your own machine
  bench         run the benchmarks and write tests/benchmarks/RESULTS.md; names choose scripts
  lock          compile constraints.txt anew from pyproject.toml
  clean         remove .venv and all caches (never my/)
  --help        this page

Standard library only. It is kept readable for Python 3.8, so that an old Python gets a sentence and no SyntaxError.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Iterator  # noqa: UP035  (Python 3.8)

ROOT = Path(__file__).resolve().parent
PYTHONS = ((3, 11), (3, 15))  # from, below: requires-python of pyproject.toml (a test holds them equal)
PREFERRED = ("3.12", "3.13", "3.11", "3.14")
TORCH = "2.13.0"  # the exact pin selects the small CPU build where one is provided
EXTRAS = {"": ["lab"], "test": ["dev"], "run": ["dev"], "notebooks": ["dev"], "bench": ["dev"], "chat": ["chat"]}
NEEDS_GB = {"cpu": 2.5, "cuda": 9.0, "more": 0.5}  # free disk: from nothing on a CPU, with CUDA, one more extra
STAMP, MARKER = "glassbox-installed.json", "glassbox-installing"


class Stop(Exception):  # noqa: N818  (the end of the program with a word, not an error inside it)
    """Ends the program with one sentence that says what to do."""


# --- running other programs -------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def child_environment(**more: str) -> dict[str, str]:
    """The environment for everything that runs in .venv: no other Python's settings leak in."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET")}
    env.update(PYTHONUTF8="1", PYTHONUNBUFFERED="1", PIP_DISABLE_PIP_VERSION_CHECK="1", **more)
    return env


PROGRESS = re.compile(r"\s*(Resolved|Downloading|Downloaded|Building|Built|Prepared|Installed|Installing)\b")


def sh(command: list[str], env: dict[str, str] | None = None, show: bool = True) -> tuple[int, str]:
    """Run an installing command; show its signs of life; return its exit status and all that it printed."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=str(ROOT),
            env=env or child_environment(),
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return 127, str(error)
    lines = []
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            lines.append(line)
            if show and PROGRESS.match(line):
                say("  " + line.strip())
    return process.returncode, "".join(lines)


def call(command: list[str], env: dict[str, str] | None = None) -> int:
    """Run a command of the course in the foreground and return its exit status; Ctrl-C is the child's to handle."""
    process = subprocess.Popen(command, cwd=str(ROOT), env=env or child_environment())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the child got it too and ends in its own way


FAULTS = (
    (
        r"no space left|errno 28|not enough space on the disk|disk quota exceeded",
        "The disk is full: free about {gigabytes} GB and run the same command again.",
    ),
    (
        r"newconnectionerror|failed to establish a new connection|name resolution|name or service not known|"
        r"connection ?(refused|reset|aborted|error|broken)|network is unreachable|max retries exceeded|proxyerror|"
        r"read ?timed? ?out|timed out|error sending request|dns error|failed to fetch|failed to download|"
        r"could not connect|certificate verify failed|invalid peer certificate|network connectivity is disabled",
        "The package index could not be reached: check the network (and the proxy, if there is one) and run the same "
        "command again; what was already fetched is kept.",
    ),
    (
        r"permission denied|read-only file system|access is denied|errno 13\b|errno 30\b",
        "{root} (or your package cache) cannot be written: copy the course to a folder of your own and run it there.",
    ),
    (
        r"no matching distribution found for torch|torch[^\n]* has no wheels|no wheels with a matching",
        "There is no PyTorch for this system ({system}, Python {python}): use 64-bit Linux, Windows or a Mac with "
        "Apple silicon (macOS 14 or newer), or open the notebooks on Colab.",
    ),
)


def diagnose(output: str, gigabytes: float = NEEDS_GB["cpu"]) -> str | None:
    """The sentence for a fault that is known by what an installer printed, or None."""
    for pattern, sentence in FAULTS:
        if re.search(pattern, output, re.IGNORECASE):
            return sentence.format(
                root=ROOT,
                gigabytes=gigabytes,
                system=platform.system() + " " + platform.machine(),
                python=platform.python_version(),
            )
    return None


# --- which Python -----------------------------------------------------------------------------------------------------

PROBE = (
    "import json, platform, sys\n"
    "try:\n"
    "    import ensurepip, venv\n"
    "    complete = True\n"
    "except ImportError:\n"
    "    complete = False\n"
    "print(json.dumps([sys.executable, list(sys.version_info[:3]), sys.maxsize > 2**32, platform.machine(), complete]))"
)


def probe(command: list[str]) -> tuple[str, str | None]:
    """Ask one Python what it is: its path, and the reason why it does not fit (None where it does)."""
    try:
        done = subprocess.run(
            [*command, "-c", PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            env=child_environment(),
        )
        path, version, wide, machine, complete = json.loads(done.stdout.decode("utf-8", "replace"))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "", "it does not run"
    return path, unfit(tuple(version), wide, machine, complete)


def wanted() -> str:
    return "Python {}.{} to {}.{}".format(*PYTHONS[0], PYTHONS[1][0], PYTHONS[1][1] - 1)


def unfit(version: tuple[int, ...], wide: bool, machine: str, complete: bool) -> str | None:
    """Why a Python cannot carry the course, or None."""
    if not PYTHONS[0] <= version[:2] < PYTHONS[1]:
        return "it is Python {} and the course needs {}".format(".".join(map(str, version)), wanted())
    if not wide:
        return "it is a 32-bit Python and PyTorch needs a 64-bit one"
    if platform.system() == "Darwin" and machine == "x86_64":
        return "it is a Python for Intel Macs, for which there is no current PyTorch"
    if not complete:
        return "it comes without the modules venv and ensurepip (Debian and Ubuntu: apt install python3-venv)"
    return None


def candidates() -> list[list[str]]:
    """Other Pythons that may be on this machine, best first."""
    found = [["python" + version] for version in PREFERRED] + [["python3"], ["python"]]
    if os.name == "nt":
        found = [["py", "-" + version] for version in PREFERRED] + found
    return [command for command in found if shutil.which(command[0])]


def fetch_python() -> str | None:
    """Let uv fetch a Python: the uv of the PATH, or one that this Python puts into a folder for the time being."""
    say(f"No {wanted()} found here; letting uv fetch one ...")
    with tempfile.TemporaryDirectory(prefix="glassbox-uv-") as folder:
        uv = shutil.which("uv")
        if uv is None:
            if sh([sys.executable, "-m", "venv", folder], show=False)[0] != 0:
                return None
            python = python_of(Path(folder))
            if sh([str(python), "-m", "pip", "install", "--quiet", "--retries", "1", "uv"], show=False)[0] != 0:
                return None
            uv = str(python.with_name("uv.exe" if os.name == "nt" else "uv"))
        if sh([uv, "python", "install", PREFERRED[0]])[0] != 0:
            return None
        status, output = sh([uv, "python", "find", "--managed-python", PREFERRED[0]], show=False)
    path = output.strip().splitlines()[-1] if status == 0 and output.strip() else ""
    return path if path and probe([path])[1] is None else None


def own_python() -> str:
    """The Python that runs this file, or its base where it is the one inside our .venv (which may be removed)."""
    if Path(sys.prefix).resolve() == (ROOT / ".venv").resolve():
        return getattr(sys, "_base_executable", sys.executable)
    return sys.executable


def find_python() -> str:
    """The Python to build .venv with: this one, another one of this machine, or one that uv fetches."""
    path, reason = probe([own_python()])
    if reason is None:
        return path
    for command in candidates():
        other, fault = probe(command)
        if fault is None:
            say(f"This Python does not fit ({reason}); using {other}.")
            return other
    fetched = fetch_python()
    if fetched:
        return fetched
    raise Stop(
        f"This Python ({sys.executable}) does not fit: {reason}; install Python {PREFERRED[0]} (64 bits) and run "
        f"`python{PREFERRED[0]} start.py` (Windows: `py -{PREFERRED[0]} start.py`)."
    )


# --- .venv ------------------------------------------------------------------------------------------------------------


def venv_folder() -> Path:
    return ROOT / ".venv"


def python_of(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def site_packages(folder: Path) -> list[Path]:
    return [folder / "Lib" / "site-packages"] if os.name == "nt" else sorted(folder.glob("lib/python*/site-packages"))


def key(extras: list[str], version: str) -> str:
    """A hash of all that decides what is installed: a changed one means that something has to be done."""
    parts = [version, str(ROOT), ",".join(sorted(extras))]
    for name in ("pyproject.toml", "constraints.txt"):
        path = ROOT / name
        parts.append(path.read_text(encoding="utf-8") if path.exists() else "")
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()


def installed() -> dict:
    """What the stamp says: {"key": ..., "extras": [...], "root": ...}, or {} where there is none that can be read."""
    try:
        stamp = json.loads((venv_folder() / STAMP).read_text(encoding="utf-8"))
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def venv_version() -> str | None:
    """The version of the Python in .venv, or None where it does not run, does not fit or has no pip."""
    python = python_of(venv_folder())
    if not python.exists():
        return None
    question = "import sys, importlib.util as u; print(*sys.version_info[:3], u.find_spec('pip') is not None)"
    status, output = sh([str(python), "-c", question], show=False)
    answer = re.match(r"(\d+) (\d+) (\d+) True", output)
    if status != 0 or answer is None:
        return None
    version = tuple(map(int, answer.groups()))
    return ".".join(map(str, version)) if PYTHONS[0] <= version[:2] < PYTHONS[1] else None


def foreign_glassbox() -> str | None:
    """The folder of another project's `glassbox` in .venv: it would hide the course's own modules."""
    for folder in site_packages(venv_folder()):
        for path in sorted(folder.glob("glassbox-*.dist-info")):
            return path.name
        if (folder / "glassbox" / "__init__.py").exists():
            return "glassbox/__init__.py"
    return None


def refuse_foreign_glassbox() -> None:
    name = foreign_glassbox()
    if name:
        raise Stop(
            f"Another project's `glassbox` ({name}) is installed in {venv_folder()} and hides this course: run "
            f"`python start.py clean`, then start again, and never `pip install glassbox` (the course is "
            f"`glassbox-course`)."
        )


def must_be_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=str(folder)):
            pass
    except OSError as error:
        raise Stop(explain(error, folder)) from error


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two set-ups at once would tear down each other's work: the second one is told to wait.

    The lock is on this very file, so that nothing is left behind; where a file system knows no locks, none is held.
    """
    with (ROOT / "start.py").open("rb") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                file.seek(2**30)  # far behind the end: the text itself stays readable
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise Stop(
                    "Another `python start.py` is setting up this course: wait until it is done and run this again."
                ) from error
        yield


def explain(error: OSError, folder: Path) -> str:
    """One sentence for a fault of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC):
        return "The disk is full: free about {} GB and run the same command again.".format(NEEDS_GB["cpu"])
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        where = error.filename or folder
        return (
            f"{where} cannot be written (read-only, or in use by another program): close JupyterLab if it runs, or "
            f"copy the course to a folder of your own and run it there."
        )
    return f"The system says: {error}; mend that and run the same command again."


def remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(str(folder))


def nvidia_driver() -> bool:
    return os.path.exists("/proc/driver/nvidia/version") or shutil.which("nvidia-smi") is not None


def pip_settings(python: Path) -> dict[str, str]:
    """pip's settings from its files and from PIP_*, the strongest of each: {"find-links": ..., ...}."""
    status, output = sh([str(python), "-m", "pip", "config", "list"], show=False)
    strength = {"global": 0, "user": 1, "site": 2, "install": 3, ":env:": 4}
    found: dict[str, tuple[int, str]] = {}
    for line in output.splitlines() if status == 0 else []:
        match = re.match(r"(global|user|site|install|:env:)\.([\w-]+)=(.*)$", line)
        if match:
            section, name, value = match.groups()
            try:
                value = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
            if name not in found or found[name][0] <= strength[section]:
                found[name] = (strength[section], value)
    return {name: value for name, (_, value) in found.items()}


def uv_environment(settings: dict[str, str]) -> dict[str, str]:
    """What uv has to know of pip's settings, as UV_* variables; those that are set already win."""
    more = {}
    if settings.get("find-links"):
        more["UV_FIND_LINKS"] = ",".join(settings["find-links"].split())
    if settings.get("extra-index-url"):
        more["UV_EXTRA_INDEX_URL"] = " ".join(settings["extra-index-url"].split())
        more["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's way: the best version of all indexes
    if settings.get("index-url"):
        more["UV_DEFAULT_INDEX"] = settings["index-url"]
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        more["UV_NO_INDEX"] = "1"
    if settings.get("trusted-host"):
        more["UV_INSECURE_HOST"] = " ".join(settings["trusted-host"].split())
    if settings.get("cert"):
        more["SSL_CERT_FILE"] = settings["cert"]
    if settings.get("proxy"):
        more["HTTPS_PROXY"] = settings["proxy"]
    return {name: value for name, value in more.items() if not os.environ.get(name)}


def install(extras: list[str]) -> None:
    """Put the course and its extras into .venv: with uv, and with plain pip where that does not work."""
    python = python_of(venv_folder())
    settings = pip_settings(python)
    env = child_environment(**uv_environment(settings))
    wanted_packages = ["-c", "constraints.txt"] if (ROOT / "constraints.txt").exists() else []
    wanted_packages += ["-e", ".[{}]".format(",".join(sorted(extras)))]
    gigabytes = NEEDS_GB["cuda" if nvidia_driver() else "cpu"]

    uv = python.with_name("uv.exe" if os.name == "nt" else "uv")
    if not uv.exists():
        status, output = sh([str(python), "-m", "pip", "install", "--retries", "2", "uv"])
        if status != 0 and diagnose(output):
            raise Stop(str(diagnose(output, gigabytes)))
    if uv.exists():
        command = [str(uv), "pip", "install", "--python", str(python)]
        small = platform.system() == "Linux" and not nvidia_driver() and not env.get("UV_FIND_LINKS")
        attempts = [[*command, "--torch-backend=cpu", *wanted_packages]] if small else []
        attempts.append([*command, *wanted_packages])
        for attempt in attempts:
            status, output = sh(attempt, env)
            if status == 0:
                return
            fault = diagnose(output, gigabytes)
            if fault and fault.startswith("The disk"):
                raise Stop(fault)
            if "--torch-backend=cpu" in attempt:
                say(
                    "The small PyTorch for CPUs could not be had; taking the usual one (a download of about 3 GB with "
                    "CUDA)."
                )
        say("uv could not install the course; trying plain pip, which takes longer.")
    status, output = sh([str(python), "-m", "pip", "install", "--retries", "2", *wanted_packages], env)
    if status != 0:
        fault = diagnose(output, gigabytes)
        if fault is None:
            say("\n".join(output.strip().splitlines()[-20:]))
            fault = "The packages could not be installed: mend what the lines above name and run it again."
        raise Stop(fault)


def try_out() -> None:
    """The big packages import and the course is this checkout's: said now, not by the first notebook."""
    question = "import matplotlib, numpy, torch, glassbox; print(*glassbox.__path__, sep='\\n')"
    status, output = sh([str(python_of(venv_folder())), "-c", question], show=False)
    if status != 0:
        last = (output.strip().splitlines() or ["no word"])[-1]
        raise Stop(
            f"The packages are installed and do not import ({last}): run `python start.py clean` and start again "
            f"(Windows: PyTorch also needs the Microsoft Visual C++ Redistributable)."
        )


def ensure(extras: list[str]) -> Path:
    """Make .venv what it should be, doing nothing where it is, and return its Python."""
    folder, stamp = venv_folder(), installed()
    python = python_of(folder)
    version = venv_version() if folder.exists() else None
    extras = sorted(set(extras) & declared_extras() | set(stamp.get("extras", [])) & declared_extras())
    if version and stamp.get("key") == key(extras, version):
        refuse_foreign_glassbox()
        return python

    must_be_writable(ROOT)
    with only_one():
        set_up(folder, version, extras, stamp)
    return python


def set_up(folder: Path, version: str | None, extras: list[str], stamp: dict) -> None:
    """Build or mend .venv. The stamp is written last, and a marker tells that an earlier call did not get there."""
    moved = "root" in stamp and stamp["root"] != str(ROOT)
    if folder.exists() and (version is None or moved or (folder / MARKER).exists()):
        say("The .venv found here is broken, moved or half-made; building it anew.")
        remove(folder)
        version = None
    need = NEEDS_GB["more"] if version else NEEDS_GB["cuda" if nvidia_driver() else "cpu"]
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < need:
        raise Stop(f"Only {free:.1f} GB are free and the set-up needs about {need} GB: free some and run it again.")
    if version is None:
        base = find_python()
        say("Making .venv (once) ...")
        folder.mkdir()
        (folder / MARKER).touch()
        status, output = sh([base, "-m", "venv", str(folder)], show=False)
        version = venv_version()
        if status != 0 or version is None:
            fault = diagnose(output) or (
                f"{base} could not make a virtual environment: install the full Python {PREFERRED[0]} (Debian and "
                f"Ubuntu: `apt install python3-venv`) and run the same command again."
            )
            raise Stop(fault)
    refuse_foreign_glassbox()
    say("Installing the course{} (minutes, once) ...".format(" and " + ", ".join(extras) if extras else ""))
    (folder / MARKER).touch()
    if (folder / STAMP).exists():
        (folder / STAMP).unlink()
    try:
        install(extras)
        refuse_foreign_glassbox()
        try_out()
    except Stop:
        (folder / MARKER).unlink()  # an installer that ended by itself left nothing half-done; the next call goes on
        raise
    aside = folder / (STAMP + ".new")
    text = json.dumps({"key": key(extras, version), "extras": extras, "root": str(ROOT)})
    aside.write_text(text, encoding="utf-8")
    os.replace(str(aside), str(folder / STAMP))
    (folder / MARKER).unlink()


def declared_extras() -> set[str]:
    """The names under [project.optional-dependencies]; tomllib is not in every Python that may read this."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"^\[project\.optional-dependencies\]\n(.*?)(?=^\[|\Z)", text, re.DOTALL | re.MULTILINE)
    return set(re.findall(r"^(\w+)\s*=", section.group(1), re.MULTILINE)) if section else set()


# --- the reader's working copies --------------------------------------------------------------------------------------


def module_folders() -> list[Path]:
    return sorted(path for path in ROOT.glob("[0-9][0-9]_*") if path.is_dir())


LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)")
PICTURE = re.compile(r"(?:\]\(|src=\\?[\"'])(?![a-z]+:|/)([^)\s\"'\\]+\.(?:svg|png))")


def working_text(text: str, folder: Path) -> str:
    """A notebook's text for my/NN_name/: links to what is not copied lead back to the course."""

    def turn(match: re.Match) -> str:
        target = folder / match.group(2)
        if target.suffix in (".svg", ".png", ".ipynb") or not target.exists():
            return match.group(0)
        home = ROOT / "my" / folder.name
        return match.group(1) + os.path.relpath(str(target), str(home)).replace(os.sep, "/")

    return LINK.sub(turn, text)


def write_once(path: Path, content: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; an existing one is never touched."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    aside.write_bytes(content)
    os.replace(str(aside), str(path))
    return True


def working_copies() -> list[Path]:
    """Copy each notebook, and the pictures that it shows, to my/: once. Returns the notebooks, in order."""
    copies = []
    for folder in module_folders():
        for notebook in sorted(folder.glob("*.ipynb")):
            text = notebook.read_text(encoding="utf-8")
            copy = ROOT / "my" / folder.name / notebook.name
            if write_once(copy, working_text(text, folder).encode("utf-8")):
                say(f"Made your working copy my/{folder.name}/{notebook.name}")
            for name in PICTURE.findall(text):
                picture = folder / name
                if ".." not in Path(name).parts and picture.is_file():
                    write_once(copy.parent / name, picture.read_bytes())
            copies.append(copy)
    return copies


# --- the verbs --------------------------------------------------------------------------------------------------------


def open_course(arguments: list[str]) -> int:
    quiet = "--no-browser" in arguments or bool(os.environ.get("GLASSBOX_NO_BROWSER"))
    rest = [a for a in arguments if a != "--no-browser"]
    unknown = [a for a in rest if not re.match(r"--port=\d+$", a)]
    if unknown:
        raise Stop(f"Unknown argument {unknown[0]!r}: `python start.py --help` lists the verbs and arguments.")
    python = ensure(EXTRAS[""])
    copies = working_copies()
    if not copies:
        raise Stop(f"No notebook was found in {ROOT}: the checkout is not complete, get the course again.")
    first = copies[0].relative_to(ROOT).as_posix()
    command = [str(python), "-m", "jupyterlab", first, "--ServerApp.root_dir=" + str(ROOT), *rest]
    if quiet:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    say(f"Opening {first} in JupyterLab; Ctrl-C here (twice) ends it. Your work is kept under my/.")
    return call(command)


def test(arguments: list[str]) -> int:
    """One pytest run over all: style, rules, units, oracles, notebooks, benchmarks; its closing line sums up."""
    python = ensure(EXTRAS["test"])
    chosen = [a for a in arguments if re.search(r"\.(py|ipynb)(::.*)?$|^tests/?$", a) and not a.startswith("-")]
    command = [str(python), "-m", "pytest", "-n", "2", "--dist", "loadfile", "--durations=10"]
    command += ["--nbval-lax", "--nbval-cell-timeout=300", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg"]
    command += arguments
    if not chosen:
        notebooks = [path for folder in module_folders() for path in sorted(folder.glob("*.ipynb"))]
        command += ["tests", *(path.relative_to(ROOT).as_posix() for path in notebooks)]
    return call(command, child_environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"))


def course(verb: str, arguments: list[str]) -> int:
    python = ensure(EXTRAS[verb])
    env = child_environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    return call([str(python), "tests/course.py", verb, *arguments], env)


def progress(arguments: list[str]) -> int:
    if not (ROOT / "my").exists():
        raise Stop("There are no working copies yet: `python start.py` makes them and opens the first notebook.")
    python = python_of(venv_folder()) if venv_version() else Path(sys.executable)
    return call([str(python), "tests/course.py", "progress", *arguments])


def chat(arguments: list[str]) -> int:
    if not list(ROOT.glob("[0-9][0-9]_*/glassbox/chat.py")):
        raise Stop("This checkout has no module that ships the chat page (glassbox/chat.py).")
    return call([str(ensure(EXTRAS["chat"])), "-m", "glassbox.chat", *arguments])


def bench(arguments: list[str]) -> int:
    python = ensure(EXTRAS["bench"])
    env = child_environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    return call([str(python), "tests/benchmarks/run.py", *arguments], env)


LOCK_HEADER = """\
# The versions that `python start.py` installs and CI tests, for every system and Python of the course.
# Made by `python start.py lock`, which runs
#   uv pip compile --universal --python-version 3.11 --all-extras pyproject.toml  (with torch=={torch} added)
# without local package folders, so that no path, no index and no local version ("+cpu") gets in.
"""


def lock(arguments: list[str]) -> int:
    """Compile constraints.txt; wanted by a maintainer after a change of the dependencies in pyproject.toml."""
    python = ensure(EXTRAS["test"])
    uv = python.with_name("uv.exe" if os.name == "nt" else "uv")
    if not uv.exists():
        raise Stop("`lock` needs uv, which could not be installed here: install uv and run it again.")
    with tempfile.TemporaryDirectory(prefix="glassbox-lock-") as folder:
        pin, out = Path(folder) / "torch.in", Path(folder) / "constraints.txt"
        pin.write_text(f"torch=={TORCH}\n", encoding="utf-8")
        lowest = ".".join(map(str, PYTHONS[0]))
        command = [str(uv), "pip", "compile", "--universal", "--python-version", lowest, "--all-extras"]
        command += ["pyproject.toml", str(pin), "--no-annotate", "--no-header", "--quiet"]
        command += ["--output-file", str(out), *arguments]
        env = child_environment()
        env.pop("UV_FIND_LINKS", None)
        status, output = sh(command, env)
        if status != 0:
            say(output.strip())
            raise Stop(diagnose(output) or "The dependencies could not be resolved: the lines above say why.")
        text = LOCK_HEADER.format(torch=TORCH) + out.read_text(encoding="utf-8")
    (ROOT / "constraints.txt").write_text(text, encoding="utf-8")
    say("Wrote constraints.txt; the next call installs what it says.")
    return 0


CACHES = (".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", "dist", "build")


def clean(arguments: list[str]) -> int:
    if arguments:
        raise Stop(f"clean takes no arguments, got {arguments[0]!r}; nothing was removed.")
    for name in (".venv", *CACHES):
        remove(ROOT / name)
    for top in [ROOT / "tests", *module_folders()]:
        for pattern in ("__pycache__", ".ipynb_checkpoints"):
            for folder in list(top.rglob(pattern)):
                remove(folder)
    remove(ROOT / "__pycache__")
    say("Removed .venv and the caches; your work under my/ is untouched.")
    return 0


def main(arguments: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a console that lacks a letter shows a ?
    # After `test` a later --help is pytest's own; everywhere else it asks for this page.
    asked = arguments[:1] if arguments[:1] == ["test"] else arguments
    if "--help" in asked or "-h" in asked or arguments[:1] == ["help"]:
        say(__doc__ or "")
        return 0
    verb = "" if not arguments or arguments[0].startswith("-") else arguments[0]
    rest = arguments[1:] if verb else arguments
    verbs = {
        "": open_course,
        "test": test,
        "run": lambda a: course("run", a),
        "notebooks": lambda a: course("notebooks", a),
        "progress": progress,
        "chat": chat,
        "bench": bench,
        "lock": lock,
        "clean": clean,
    }
    try:
        if verb not in verbs:
            raise Stop("There is no verb {!r}; the verbs are {}.".format(verb, ", ".join(v for v in verbs if v)))
        return verbs[verb](rest)
    except Stop as stop:
        print(f"start.py: {stop}", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"start.py: {explain(error, ROOT)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("start.py: stopped; the same command goes on from here.", file=sys.stderr, flush=True)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
