"""A schema registry's REST form over real HTTP: enough of it to fetch schemas, to fail and to come back.

What goes here: the server. What does not: assertions. It is a fake, not a mock: the product's own client talks to it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Registry:
    """Schemas by id; :attr:`asked` counts the requests for each id while it was up."""

    def __init__(self, schemas: dict[int, dict[str, Any]]) -> None:
        self.schemas, self.asked = schemas, Counter[int]()
        self.authorization: str | None = None
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Answer, at the same port as before."""
        registry = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.authorization = self.headers.get("Authorization")
                status, body = registry.answer(self.path.split("?")[0])
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Answers)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, path: str) -> tuple[int, Any]:
        if path == "/subjects":
            return 200, ["shop_events-value"]
        schema_id = int(path.rsplit("/", 1)[1])
        self.asked[schema_id] += 1
        if schema_id not in self.schemas:
            return 404, {"error_code": 40403, "message": "Schema not found"}
        return 200, {"schema": json.dumps(self.schemas[schema_id])}

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
