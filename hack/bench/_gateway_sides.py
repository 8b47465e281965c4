"""What the gateway benchmark compares, each on one core: our gateway, nginx, vllm-router, a proxy on aiohttp."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hack.bench._gateway_cluster import KEYS, NAMESPACE
from hack.bench._processes import Served, bench_cache, free_port, mock, process_of, told_port, wait_for
from hack.uv import find_uv

__all__ = ["RivalMissing", "mock", "nginx", "ours", "plain", "router", "router_version"]

ROUTER: Final = "vllm-router==0.1.17"

_KUBECONFIG: Final = """
current-context: bench
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
clusters: [{{name: bench, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: bench, user: {{token: none}}}}]
"""

# Connections kept on both sides, events passed on as they come. Plain nginx writes bodies over 16 KB to a file; tuned
# it keeps them in memory, as we do.
_NGINX: Final = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 18000; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 4m; tcp_nodelay on; {tuned}
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream pod {{ server 127.0.0.1:{pod}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://pod; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


class RivalMissing(Exception):  # noqa: N818 - it names a state
    """A rival is not to be had; the text says why."""


@contextmanager
def ours(pod: Served, *, core: int, load_core: int, settings: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Run the gateway with all that it does in a cluster, whose API server is imitated on `load_core`."""
    cluster = [sys.executable, "-m", "hack.bench._gateway_cluster", str(pod.port)]
    with (
        TemporaryDirectory() as folder,
        process_of(cluster, {}, stdout=subprocess.PIPE, core=load_core, log="gateway-cluster") as api,
    ):
        kubeconfig = Path(folder, "kubeconfig")
        kubeconfig.write_text(_KUBECONFIG.format(port=told_port(api)), encoding="utf-8")
        port, admin = free_port(), free_port()
        environment = {
            **{"KUBECONFIG": str(kubeconfig), "MOORAGE_GATEWAY_HOST": "127.0.0.1"},
            **{"MOORAGE_GATEWAY_PORT": str(port), "MOORAGE_GATEWAY_ADMIN_PORT": str(admin)},
            **{"MOORAGE_GATEWAY_NAMESPACES": NAMESPACE, "MOORAGE_GATEWAY_KEY_NAMESPACE": KEYS},
            **{"MOORAGE_GATEWAY_DRAIN_SECONDS": "1"},
            **(settings or {}),
        }
        python, variables = image_python()
        command = [python, "-m", "moorage_gateway"]
        with process_of(command, {**environment, **variables}, core=core, log="gateway") as process:
            yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{admin}/readyz", process, log="gateway"))


def image_python() -> tuple[str, dict[str, str]]:
    """Give the Python of our images, Debian's, and what it needs to find our packages; else the one that runs this.

    One that somebody compiled without optimisation takes half as long again for everything.
    """
    debian, version = Path("/usr/bin/python3"), f"python{sys.version_info.major}.{sys.version_info.minor}"
    if debian.exists() and debian.resolve().name == version and not sys.executable.startswith("/usr/"):
        ours = (path for path in sys.path if path and not path.startswith(sys.base_prefix))
        return str(debian), {"PYTHONPATH": ":".join(ours)}
    return sys.executable, {}


@contextmanager
def nginx(pod: Served, *, core: int, tuned: bool = False) -> Iterator[Served]:
    """Run nginx as a plain proxy: it asks nobody who they are, and knows one pod."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise RivalMissing("nginx is not installed: hack/debian/install.py --bench")
    with TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder, "nginx.conf")
        more = "client_body_buffer_size 4m;" if tuned else ""
        config.write_text(
            _NGINX.format(folder=folder, pod=pod.port, port=port, tuned=more),
            encoding="utf-8",
        )
        with process_of([program, "-c", str(config), "-p", folder], {}, core=core, log="gateway-nginx") as process:
            yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{port}/", process, log="gateway-nginx"))


def nginx_version() -> str:
    """Give nginx's version."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    shown = subprocess.run([str(program), "-v"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"nginx/(\S+)", shown)
    return found[1] if found else "?"


@contextmanager
def router(pod: Served, *, core: int) -> Iterator[Served]:
    """Run vllm-router with its defaults before one worker."""
    port = free_port()
    command = [str(_router()), "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    command += ["--worker-urls", f"http://127.0.0.1:{pod.port}", "--prometheus-port", str(free_port())]
    command += ["--log-level", "error"]
    with process_of(command, {}, core=core, log="gateway-router") as process:
        yield Served(port, process.pid, wait_for(f"http://127.0.0.1:{port}/health", process, log="gateway-router"))


def router_version() -> str:
    """Give vllm-router's version; RivalMissing where it cannot be had."""
    _router()
    return ROUTER.rpartition("=")[2]


@contextmanager
def plain(pod: Served, *, core: int) -> Iterator[Served]:
    """Run the proxy on aiohttp."""
    python, variables = image_python()
    command = [python, "-m", "hack.bench._gateway_proxy", str(pod.port)]
    with process_of(command, variables, stdout=subprocess.PIPE, core=core, log="gateway-aiohttp") as process:
        begun = time.monotonic()
        yield Served(told_port(process), process.pid, time.monotonic() - begun)


def _router() -> Path:
    """Install vllm-router in an environment of its own."""
    folder = bench_cache() / "vllm-router"
    if not (folder / "ready").exists():
        uv = find_uv()
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        command = [uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), ROUTER]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RivalMissing(f"{ROUTER} cannot be installed: {done.stderr.strip()[-300:]}")
        (folder / "ready").touch()
    return folder / "bin" / "vllm-router"
