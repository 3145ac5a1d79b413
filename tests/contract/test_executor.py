"""Jobs done in another process, which shares nothing with this one but the key: values travel."""

from __future__ import annotations

import multiprocessing

import pytest

from provisioner.engine.executor import Threads
from provisioner.sealing import new_key
from provisioner.verb import Verb
from tests.unit.test_executor import Posted, told, visitor, worker


@pytest.mark.timeout(120)
def test_a_job_in_another_process_tells_what_a_thread_tells() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        sent = told(Posted(lambda sealed, key: processes.apply(worker, (sealed, key)), new_key()), Verb.PLAN)
    assert sent == told(Threads(visitor()), Verb.PLAN)
