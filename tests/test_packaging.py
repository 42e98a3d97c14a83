"""The course as a package: one namespace over the numbered folders, as a wheel and as an editable install.

Both are built without isolation and without an index, and tried from a folder far from the checkout, in an environment
that sees this one's packages (a .pth file) but not its editable install. `constraints.txt` is made by
`python start.py lock`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = sorted(path.name for path in ROOT.glob("[0-9][0-9]_*") if path.is_dir())
MODULES = sorted(path.stem for path in ROOT.glob("[0-9][0-9]_*/glassbox/*.py"))
DATA = sorted(path.name for path in (ROOT / "data").iterdir() if path.is_file())

TRIAL = """
import importlib, pathlib, sys
import glassbox
where = [str(pathlib.Path(path).resolve()) for path in glassbox.__path__]
for name in sys.argv[1:]:
    importlib.import_module("glassbox." + name)
assert getattr(glassbox, "__file__", None) is None, "glassbox must be a namespace: an __init__.py hides modules"
from glassbox.lab import dataset
tales = dataset("tales")
assert tales.stat().st_size > 100_000, tales
print(*where, tales.resolve(), sep="\\n")
"""


def run(command: list[str], cwd: Path) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "GLASSBOX_DATA")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def copy_of_the_tree(target: Path) -> Path:
    """The files that the package is built from, in a folder of their own: a build leaves nothing in the checkout."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    junk = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in [*FOLDERS, "data"]:
        shutil.copytree(ROOT / name, target / name, ignore=junk)
    return target


def environment(folder: Path) -> str:
    """A venv that sees the packages of this one through a .pth file; .pth files over there are not followed."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    (site / "packages_here.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return str(python)


def pip(python: str, *arguments: str, cwd: Path) -> None:
    quiet = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    run([python, "-m", "pip", *arguments[:1], *quiet, *arguments[1:]], cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_of_the_tree(tmp_path_factory.mktemp("tree") / "Glass Böx")
    out = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--wheel-dir", str(out), str(tree), cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_modules_and_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(name for name in archive.namelist() if ".dist-info/" not in name)
    expected = [f"glassbox/{name}.py" for name in MODULES] + ["glassbox/py.typed"]
    expected += [
        f"glassbox/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "data").rglob("*") if path.is_file()
    ]
    assert names == sorted(expected)


def test_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env")
    pip(python, "install", str(wheel), cwd=tmp_path)
    *where, tales = run([python, "-c", TRIAL, *MODULES], tmp_path).splitlines()
    assert len(where) == 1
    assert Path(where[0]).is_relative_to((tmp_path / "env").resolve())
    assert Path(tales).is_relative_to((tmp_path / "env").resolve()), "the embedded data comes with the package"


def test_editable_install_follows_the_folders(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path / "Glass Böx")
    python = environment(tmp_path / "env")
    pip(python, "install", "-e", str(tree), cwd=tmp_path)
    *where, tales = run([python, "-c", TRIAL, *MODULES], tmp_path).splitlines()
    assert [Path(path).parent.name for path in where] == FOLDERS
    assert Path(tales).parent == (tree / "data").resolve()
    (tree / FOLDERS[0] / "glassbox" / "added_later.py").write_text("x = 1\n", encoding="utf-8")
    run([python, "-c", "from glassbox.added_later import x"], tmp_path)


def test_an_init_file_would_hide_the_other_folders(tmp_path: Path) -> None:
    """Why the house rule against glassbox/__init__.py exists: the trial above fails with one."""
    for name in ("00_a", "01_b"):
        (tmp_path / name / "glassbox").mkdir(parents=True)
        (tmp_path / name / "glassbox" / f"module_{name[3:]}.py").touch()
    paths = [str(tmp_path / name) for name in ("00_a", "01_b")]
    code = f"import sys; sys.path[:0] = {paths}; import glassbox.module_a, glassbox.module_b"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    (tmp_path / "00_a" / "glassbox" / "__init__.py").touch()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1


def test_no_init_file_in_any_module() -> None:
    assert not list(ROOT.glob("[0-9][0-9]_*/glassbox/__init__.py"))


def test_no_two_folders_ship_the_same_module() -> None:
    assert len(MODULES) == len(set(MODULES)), MODULES


def test_pyproject_names_every_numbered_folder() -> None:
    build = PYPROJECT["tool"]["hatch"]["build"]
    assert build["dev-mode-dirs"] == FOLDERS
    assert build["targets"]["wheel"]["sources"] == dict.fromkeys(FOLDERS, "") | {"data": "glassbox/data"}
    assert [path for path in PYPROJECT["tool"]["pyright"]["extraPaths"] if path[:2].isdigit()] == FOLDERS


# --- constraints.txt --------------------------------------------------------------------------------------------------


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_are_exact_and_portable() -> None:
    for line in constraints():
        assert re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*( ; .+)?", line), f"not an exact, portable pin: {line}"


def test_constraints_cover_every_dependency() -> None:
    """A dependency that was added without `python start.py lock` would float."""
    pinned: dict[str, list[Requirement]] = {}
    for line in constraints():
        pinned.setdefault(Requirement(line).name, []).append(Requirement(line))
    project = PYPROJECT["project"]
    wanted = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    for requirement in map(Requirement, wanted):
        name = requirement.name.lower().replace("_", "-")
        assert name in pinned, f"{name} is not in constraints.txt: run `python start.py lock`"
        for pin in pinned[name]:
            (version,) = (clause.version for clause in pin.specifier)
            assert requirement.specifier.contains(version), (
                f"{pin} is outside {requirement}: run `python start.py lock`"
            )


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python_gets_one_version_of_each_package(version: str) -> None:
    from packaging.markers import default_environment

    for system, platform in (("Linux", "linux"), ("Darwin", "darwin"), ("Windows", "win32")):
        environment = {
            **{name: str(value) for name, value in default_environment().items()},
            "python_version": version,
            "python_full_version": f"{version}.9",
            "sys_platform": platform,
            "platform_system": system,
            "os_name": "nt" if platform == "win32" else "posix",
        }
        chosen = [r.name for r in map(Requirement, constraints()) if r.marker is None or r.marker.evaluate(environment)]
        assert len(chosen) == len(set(chosen))
        assert {"torch", "numpy", "jupyterlab"} <= set(chosen)
