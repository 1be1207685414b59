"""The wheel, built once from this tree, and fresh environments to install it in."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it but what a test installs; not even pip."""

    python: Path
    site_packages: Path

    def install(self, *wheels: Path) -> None:
        """`pip install` the wheels, one run each, so that their order is the order of the arguments."""
        for wheel in wheels:
            self._pip("install", "--no-index", "--no-deps", "--no-compile", str(wheel))

    def uninstall(self, name: str) -> None:
        self._pip("uninstall", "--yes", name)

    def run(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run this environment's Python in `cwd`, which `-m` puts first on the import path."""
        return subprocess.run([str(self.python), *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)

    def _pip(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python)]
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"pip {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree. Built without isolation: the build backend comes with the `dev` extra."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"building the wheel failed:\n{done.stdout}{done.stderr}"
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    prefix = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True, timeout=120)
    python = prefix / "bin" / "python"
    site_packages = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Environment(python, Path(site_packages.stdout.strip()))


@pytest.fixture
def foreign_wheel(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Make a wheel of a distribution called `elsewhere`, of the given files (path in the wheel -> text)."""

    def make(files: Mapping[str, str]) -> Path:
        info = "elsewhere-1.0.dist-info"
        contents = {
            **files,
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = [f"{name},sha256={_urlsafe_sha256(text)},{len(text)}" for name, text in contents.items()]
        contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
        path = tmp_path / "elsewhere-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in contents.items():
                archive.writestr(name, text)
        return path

    return make


def _urlsafe_sha256(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
