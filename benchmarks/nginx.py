"""nginx with the prebuilt answers: a server so fast that the client is what is measured."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
{modules}
pid {root}/nginx.pid;
error_log {root}/error.log;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  log_format moments '$msec';
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
  types {{ application/json json; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {root}/answers;
    # nginx answers a POST with a static file only as what is shown instead of an error.
    location ~ ^/(?<size>[SML])/ {{ error_page 405 =200 /$size.json; return 405; }}
    {slow}
  }}
}}
"""
SLOW = """
    location ~ ^/slow/(?<late>[SML])/ {{ echo_sleep 2; echo_exec /late/$late; }}
    location /late/ {{ error_page 405 =200 /logged/$late.json; return 405; }}
    location /logged/ {{ alias {root}/answers/; access_log {root}/slow.log moments buffer=64k flush=1s; }}
"""
ECHO = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")


def find() -> str:
    """The nginx of this machine; ends the program with advice where there is none."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        sys.exit("the benchmark needs nginx: apt-get install nginx-light (it is started on a free port, for us alone)")
    return found


@contextmanager
def serving(root: Path, core: int | None) -> Iterator[str]:
    """nginx on a free port with `root/answers`; the address. With its echo module /slow/ answers after 2 s."""
    # However the benchmark ends, its server ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = root / "nginx.conf"
    slow = SLOW.format(root=root) if ECHO.exists() else ""
    modules = f"load_module {ECHO};" if ECHO.exists() else ""
    config.write_text(CONFIG.format(root=root, port=port, slow=slow, modules=modules))
    command = [find(), "-c", str(config), "-p", str(root), "-e", str(root / "error.log"), "-g", "daemon off;"]
    process = subprocess.Popen(command if core is None else ["taskset", "-c", str(core), *command])
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            sys.exit("nginx did not start; its words are above")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("nginx does not listen")
