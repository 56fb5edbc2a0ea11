"""The guard of this folder guards."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.unit import conftest


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda: subprocess.run(["true"]), id="process"),
        pytest.param(lambda: os.system("true"), id="system"),
        pytest.param(os.fork, id="fork"),
        pytest.param(lambda: socket.socket(), id="socket"),
        pytest.param(lambda: socket.create_connection(("127.0.0.1", 9)), id="connection"),
    ],
)
def test_a_unit_test_cannot_leave(leave: Callable[[], object]) -> None:
    with pytest.raises(conftest.LeftTheRoom):
        leave()
    assert conftest._guard.tried
    conftest._guard.tried.clear()
