from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from hierfl.config.schema import Runtime
from hierfl.errors import RuntimeUnavailable
from hierfl.runtime import ray_address
from hierfl.runtime.ray_address import check, locate, within
from hierfl.runtime.ray_cluster import connect


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A port that takes connections and says `answer` to whatever comes; for None, not a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                kept.append(line)
                if answer is not None:
                    line.settimeout(5)
                    try:
                        line.recv(1024)
                        line.sendall(answer)
                        line.close()
                    except OSError:
                        pass

        kept: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for line in kept:
            line.close()


@contextmanager
def answering(*methods: str, code: grpc.StatusCode | None = None) -> Iterator[str]:
    """A gRPC server that knows these methods, and answers with nothing or with an error."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        if code is not None:
            context.abort(code, "no")
        return b""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.unary_unary_rpc_method_handler(answer) if details.method in methods else None

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Handler()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which no Ray runs; gives the file in which the last `ray start` left its address."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_what_knows_the_question_is_a_ray_even_if_it_wants_a_token_first() -> None:
    with answering(ray_address.QUESTION) as address:
        check(address, address)
    with answering(ray_address.QUESTION, code=grpc.StatusCode.UNAUTHENTICATED) as address:
        check(address, address)


def test_what_else_speaks_grpc_is_not_ray() -> None:
    with answering("/other.Service/Ask") as address, pytest.raises(RuntimeUnavailable, match="is not Ray"):
        check(address, address)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_web_server_and_one_that_hangs_up_are_not_ray(answer: bytes) -> None:
    with listening(answer) as address, pytest.raises(RuntimeUnavailable, match="is not Ray"):
        check(address, address)


def test_what_takes_connections_and_says_nothing() -> None:
    with listening(None) as address, pytest.raises(RuntimeUnavailable, match=r"no answer within 0\.2 s"):
        check(address, address, 0.2)


def test_a_closed_port_says_so_and_the_ways_out(closed: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"Connection refused.*ray start --head.*runtime\.kind: local"):
        check(closed, closed)


def test_auto_is_what_the_environment_says_else_what_runs_else_the_last_start(
    nothing_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeUnavailable, match="'auto': none runs here, and RAY_ADDRESS is not set"):
        locate("auto")
    nothing_runs.write_text("127.0.0.1:6399\n")
    assert locate("auto") == "127.0.0.1:6399"
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: frozenset({"10.0.0.1:6379"}))
    assert locate("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert locate("auto") == "10.0.0.2:6379"
    assert locate("10.0.0.3:6379") == "10.0.0.3:6379"


@pytest.mark.parametrize(
    ("named", "said"), [("ray://10.0.0.1:10001", "hierfl submit"), ("local", "'local' is not host:port")]
)
def test_auto_that_leads_to_no_gcs_is_refused(monkeypatch: pytest.MonkeyPatch, named: str, said: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(RuntimeUnavailable, match=said):
        locate("auto")


def test_the_address_of_a_ray_that_is_gone_is_told_before_ray_is_asked(nothing_runs: Path, closed: str) -> None:
    nothing_runs.write_text(closed)
    with pytest.raises(RuntimeUnavailable, match=rf"'auto', which is {closed} here: .*refused"):
        connect(Runtime(kind="ray", address="auto"))


def test_a_ray_that_answers_and_takes_no_driver_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr("ray.init", lambda **_: over.wait(60))
    with (
        answering(ray_address.QUESTION) as address,
        pytest.raises(RuntimeUnavailable, match=r"no driver within 0\.5 s"),
    ):
        connect(Runtime(kind="ray", address=address), limit_s=0.5)
    over.set()


def test_a_ray_of_another_version_is_told_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray words it, on five lines."""
    said = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.52.0\n    Python: 3.11.7\n"
        "This process on node 192.0.2.2 was started with:\n    Ray: 2.60.0\n    Python: 3.12.1\n"
    )

    def init(**_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("ray.init", init)
    both = r"has Ray 2\.52\.0 and Python 3\.11\.7, this process Ray 2\.60\.0 and Python 3\.12\.1: both must be the same"
    with answering(ray_address.QUESTION) as address, pytest.raises(RuntimeUnavailable, match=both):
        connect(Runtime(kind="ray", address=address))


def test_work_within_a_limit_gives_what_it_gives_and_raises_what_it_raises() -> None:
    assert within(60, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(60, lambda: {}["a"])  # type: ignore[index]
    over = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.01, over.wait)
    over.set()
