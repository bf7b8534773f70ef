"""As many members as a hub may have: each is in touch over mutual TLS, and its update counts."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_crowd import SMALL, path_of
from link_members import AGREED, Pki, job, model, update

from hierfl.learning.ring import Accumulator, PartialSum
from hierfl.link.authority import new_key, private_pem
from hierfl.link.identity import MEMBER
from hierfl.link.lane import Lane
from hierfl.link.service import Service
from hierfl.link.shelf import Shelf
from hierfl.link.spool import Spool
from hierfl.link.turns import Turns
from hierfl.runtime.driver import Done
from hierfl.runtime.hub import grid_of

NUM = 1000
SUPPORT = Path(__file__).parents[2] / "support"


@pytest.mark.slow
def test_a_thousand_members_at_one_hub(tmp_path: Path) -> None:
    pki, key, paths = Pki(tmp_path), new_key(), [path_of(number) for number in range(NUM)]
    pki.authority.know(dict.fromkeys(paths, (MEMBER,)))
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    (tmp_path / "ca.pem").write_bytes(pki.authority.pem)
    for number, path in enumerate(paths):
        (tmp_path / f"{number}.pem").write_bytes(pki.authority.issue(path, key.public_key(), datetime.now(UTC), 1))
    done: queue.SimpleQueue[Done] = queue.SimpleQueue()
    spool, shelf, turns, start = Spool(tmp_path / "spool"), Shelf(), Turns(), model(SMALL)
    lanes = {
        path: Lane(path, AGREED.run, 600.0, 1, spool, shelf, done.put, lambda value: value, turns=turns)
        for path in paths
    }
    service = Service(pki.kit("world"), "127.0.0.1:0", AGREED, lanes, lambda *said: None)
    crowd = subprocess.Popen(
        [sys.executable, str(SUPPORT / "link_crowd.py"), str(tmp_path), str(service.port), str(NUM)],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "GRPC_VERBOSITY": "NONE"},
    )

    def all_of(method: str, arguments: Any) -> list[Done]:
        for ticket, path in enumerate(paths):
            lanes[path].call(ticket, method, arguments(path))
        found = [done.get(timeout=300) for _ in paths]
        assert not [one for one in found if one.crashed or one.error]
        return found

    try:
        all_of("prepare", lambda path: (None, None))
        all_of("prepare", lambda path: (SMALL, None))
        asked = {path: job(path=path, total=10 * NUM) for path in paths}
        all_of("train", lambda path: (asked[path], start))
        total = Accumulator(grid_of(asked[paths[0]].opening), SMALL)
        for one in all_of("collect", lambda path: ("world", 0)):
            part: PartialSum = one.beside[0]
            total.add_sum(part)
        assert total.total().weight == 10 * NUM
        expected = sum(update(SMALL, number)[0].astype(np.int64) for number in range(NUM))
        np.testing.assert_array_equal(total.total().floats.astype(np.int64), expected)
    finally:
        service.close("the test is over", final=True)
        try:
            assert crowd.wait(60) == 0
        finally:
            crowd.kill()
