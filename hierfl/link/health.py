"""How a process that serves a node is: one JSON object over HTTP, for whoever watches services on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hierfl.errors import LinkError

__all__ = ["Health"]


class Health:
    """Answers `GET /healthz` at an address while it is open. Errors: LinkError if it cannot listen there."""

    def __init__(self, address: str, say: Callable[[], Mapping[str, Any]]) -> None:
        host, _, port = address.rpartition(":")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_known = self.path == "/healthz"
                content = json.dumps(say()).encode() if is_known else b"{}"
                self.send_response(200 if is_known else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *said: Any) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Handler)
        except (OSError, ValueError, OverflowError) as error:
            raise LinkError(f"--health cannot listen at {address}: {error}; give HOST:PORT") from error
        self.port = self._server.server_port
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
