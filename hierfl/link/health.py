"""How a process that serves a node is, over HTTP, for whoever watches services on this machine: one JSON object, and
what Prometheus collects.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

from hierfl.errors import LinkError

__all__ = ["Health", "Page"]

Page: TypeAlias = Callable[[], tuple[str, bytes]]
"""Gives its content's type, and the content."""

_JSON = "application/json"

PATIENCE_S = 10.0
"""How long somebody who has called may take to say what is asked, and to take the answer."""


class Health:
    """Answers `GET /healthz` and `GET /metrics` at an address while it is open. Errors: LinkError if it cannot listen
    there.
    """

    def __init__(self, address: str, say: Callable[[], Mapping[str, Any]], metrics: Page) -> None:
        host, _, port = address.rpartition(":")
        pages: dict[str, Page] = {"/healthz": lambda: (_JSON, json.dumps(say()).encode()), "/metrics": metrics}

        class Handler(BaseHTTPRequestHandler):
            timeout = PATIENCE_S

            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                kind, content = page() if page is not None else (_JSON, b"{}")
                self.send_response(200 if page is not None else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *said: Any) -> None:
                pass

        try:
            self._server = _Server(host.strip("[]") or "127.0.0.1", int(port), Handler)
        except (OSError, ValueError, OverflowError) as error:
            raise LinkError(f"--health cannot listen at {address}: {error}; give HOST:PORT") from error
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Listens at a host of either family. Errors: OSError, OverflowError."""

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what went wrong here: who hangs up before the answer is nothing for our log."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
