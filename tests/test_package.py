"""The package as others get it: the wheel, the pins, the public names, the speed of --help."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tune_rnn

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tune_rnn"

# As the console script that pip writes does it, without depending on where pip put the script.
HELP = "import sys; from tune_rnn.cli import main; sys.argv = ['tune-rnn', '--help']; sys.exit(main())"


def python(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run this interpreter away from the sources; `path` goes in front of what is installed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution; nothing is fetched."""
    built = tmp_path_factory.mktemp("dist")
    python("-m", "build", "--no-isolation", "--outdir", str(built), str(ROOT), cwd=built)
    assert len(list(built.glob("*.tar.gz"))) == 1
    (wheel,) = built.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (license_file,) = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        assert b"Apache License" in archive.read(license_file)
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    assert held == modules | {"tune_rnn/py.typed"}


def test_the_wheel_imports_from_a_clean_directory(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    python(*pip, "--target", str(target), str(wheel), cwd=tmp_path)
    code = """
import importlib.metadata as metadata, tune_rnn, tune_rnn.cli
(script,) = metadata.entry_points(group="console_scripts", name="tune-rnn")
assert script.load() is tune_rnn.cli.main
print(tune_rnn.__file__, tune_rnn.Experiment.__module__, metadata.version("tune_rnn"), script.value)
"""
    shown = python("-c", code, cwd=tmp_path, path=target).stdout.split()
    module = str(target / "tune_rnn" / "__init__.py")
    assert shown == [module, "tune_rnn.experiment", tune_rnn.__version__, "tune_rnn.cli:main"]


def requirements(name: str, extras: Sequence[str], seen: set[tuple[str, str]]) -> None:
    """Add to `seen` every (package, extra) that the installed package `name` needs, and what those need."""
    for extra in ("", *extras):
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                requirements(canonicalize_name(wanted.name), sorted(wanted.extras), seen)


def test_every_package_that_gets_installed_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    seen: set[tuple[str, str]] = set()
    requirements("tune-rnn", ["dev"], seen)
    assert {name for name, _ in seen} - {"tune-rnn"} <= {canonicalize_name(pin.name) for pin in pins}


def test_the_pins_lie_within_the_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    ranges = [Requirement(text) for text in metadata.requires("tune_rnn") or ()]
    ranges = [one for one in ranges if canonicalize_name(one.name) != "tune-rnn"]  # an extra of our own
    outside = [str(r) for r in ranges if pinned[canonicalize_name(r.name)] not in r.specifier]
    assert outside == []


@pytest.mark.parametrize("name", [*tune_rnn._PUBLIC, "__version__"])
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(tune_rnn, name) is not None
    assert name in dir(tune_rnn)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tune_rnn' has no attribute 'experment'"):
        tune_rnn.experment  # noqa: B018 -- the access is the test


def test_type_checkers_see_the_same_names_as_users() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    named: dict[str | None, str] = {}
    for node in imports:
        separator = "." if node.module == "tune_rnn" else ":"
        named |= {alias.asname: f"{node.module}{separator}{alias.name}" for alias in node.names}
    assert named == tune_rnn._PUBLIC


def test_help_answers_at_once(tmp_path: Path) -> None:
    """Under half a second, the median of five; the first call, which may write byte code, does not count."""
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        shown = python("-c", HELP, cwd=tmp_path).stdout
        seconds.append(time.perf_counter() - start)
        assert "usage: tune-rnn" in shown
    assert statistics.median(seconds[1:]) < 0.5, seconds


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    trace = python("-X", "importtime", "-c", HELP, cwd=tmp_path).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.splitlines()}
    assert "tune_rnn" in imported
    assert imported.isdisjoint({"torch", "ray", "pydantic", "numpy", "hyperopt", "tensorboard", "pandas"})
