"""The wheel and the source distribution: what they contain, and that the wheel works without the repository."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import msfnet

ROOT = Path(__file__).resolve().parent.parent
CONTENT = {  # besides modules
    "msfnet/py.typed",
    "msfnet/experiments/paper_tables.toml",
    "msfnet/experiments/presets.toml",
    "msfnet/recipes/best.toml",
    "msfnet/recipes/demo.toml",
    "msfnet/recipes/paper.toml",
    "msfnet/recipes/small.toml",
    "msfnet/templates/report.html",
    "msfnet/weights/msfnet_ucf101_18.safetensors",
}


def build(source, out, *targets):
    """Build distributions of a source tree with the installed hatchling, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *(f"-t{target}" for target in targets)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def files_of(wheel):
    """The files of a wheel but its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Paths of the wheel and of the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "wheel", "sdist")
    return out / f"msfnet-{msfnet.__version__}-py3-none-any.whl", out / f"msfnet-{msfnet.__version__}.tar.gz"


@pytest.mark.slow
def test_wheel_content(distributions):
    names = files_of(distributions[0])
    assert {name for name in names if not name.endswith(".py")} == CONTENT
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "msfnet").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


@pytest.mark.slow
def test_sdist_builds_the_same_wheel(distributions, tmp_path):
    wheel, sdist = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / f"msfnet-{msfnet.__version__}", tmp_path, "wheel")
    assert files_of(tmp_path / wheel.name) == files_of(wheel)


@pytest.mark.slow
def test_installed_wheel_runs(distributions, tmp_path):
    """In another folder, before the repository on the path, with the dependencies of this environment."""
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*install, str(distributions[0])], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(target)}

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    program = next((target / "bin").glob("msfnet*"))
    assert run(program, "--version").strip() == msfnet.__version__
    assert "msf_r3d_18_fsam" in run(program, "models", "msf*")
    script = "import msfnet; print(msfnet.__file__); print(msfnet.Recognizer.load('msfnet_ucf101_18').classes[0])"
    file, first_class = run(sys.executable, "-c", script).splitlines()
    assert Path(file).is_relative_to(target)
    assert first_class
