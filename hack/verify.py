"""`python -m hack.verify`: all that can be checked without running the product. Each step runs, whatever fails."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.toolchain.builder import ToolCache, ensure_built
from hack.cluster.toolchain.catalog import HELM, binaries_of
from hack.uv import find_uv

ROOT = Path(__file__).resolve().parents[1]
TYPED = ("cli/src", "common/src", "gateway/src", "operator/src", "runtime/src", "hack", "tests")
# Where packages come from is the machine's business (uv.lock has to name it), and so is where the checkout lies. So a
# host is allowed only if it is of documentation, of a schema, or kept by the standards for examples and local use.
_HOSTS = {
    *("docs.aiohttp.org", "git-scm.com", "go.dev", "huggingface.co", "json-schema.org", "kopf.readthedocs.io"),
    *("kubernetes.io", "pkg.go.dev", "www.apache.org"),
}
_LOCAL_HOST = re.compile(r"[\w-]+|([\w.-]+\.)?(example|svc|invalid|test|example\.(org|com|net))|(127|169\.254)\.[\d.]+")
_URL = re.compile(r"https?://([A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9])")
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|work)/[\w.]|(?<![\w.])/home/(?!me\b|user\b|nonroot\b)\w")
_MAY_NAME_HOSTS = {"uv.lock"}


@dataclass(frozen=True)
class Step:
    """One check: it returns what is wrong, or nothing."""

    name: str
    check: Callable[[], str]


def program(*command: str) -> Callable[[], str]:
    """Make a check of a command: what it prints is what is wrong, if it fails."""

    def check() -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        return (done.stdout + done.stderr).strip() or f"ended with {done.returncode}" if done.returncode else ""

    return check


def python(module: str, *arguments: str) -> Callable[[], str]:
    """Make a check of a Python module."""
    return program(sys.executable, "-m", module, *arguments)


def foreign_names(files: Iterable[tuple[str, str]]) -> list[str]:
    """Find hosts that are not ours to name, and paths of one machine; give each with its place."""
    return [
        f"{name}:{number}: {line.strip()[:160]}"
        for name, text in files
        for number, line in enumerate(text.splitlines(), start=1)
        if _MACHINE_PATH.search(line) or any(_is_foreign(host) for host in _URL.findall(line))
    ]


def _is_foreign(host: str) -> bool:
    return host not in _HOSTS and not _LOCAL_HOST.fullmatch(host)


def check_names() -> str:
    """Look through all tracked files for what belongs to one machine only."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name and name not in _MAY_NAME_HOSTS]
    texts = (
        (str(path.relative_to(ROOT)), path.read_text(encoding="utf-8", errors="replace"))
        for path in paths
        if path.is_file()
    )
    return "\n".join(foreign_names(texts))


def steps() -> list[Step]:
    """List the checks, the quick ones first."""
    ensure_built([HELM])
    helm = binaries_of([HELM], ToolCache.default().bin_root)["helm"]
    return [
        Step("ruff format", python("ruff", "format", "--check", ".")),
        Step("ruff check", python("ruff", "check", ".")),
        Step("no hosts or paths of one machine", check_names),
        Step("uv.lock", program(find_uv(), "lock", "--check")),
        Step("layers (import-linter)", program(str(Path(sys.executable).with_name("lint-imports")))),
        Step("generated files", python("hack.gen_crd", "--check")),
        Step("helm lint", program(str(helm), "lint", "--strict", "charts/moorage")),
        Step("types (mypy)", python("mypy", *TYPED)),
    ]


def run(checks: Sequence[Step]) -> int:
    """Run all checks, timed and named; list the failed ones at the end."""
    failures: dict[str, str] = {}
    for step in checks:
        start = time.monotonic()
        wrong = step.check()
        print(f"  {'✗' if wrong else '✓'} {step.name} ({time.monotonic() - start:.1f} s)", flush=True)
        if wrong:
            failures[step.name] = wrong
    for name, wrong in failures.items():
        print(f"\n--- {name}\n{wrong}")
    if failures:
        print(f"\nverify failed: {', '.join(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run(steps()))
