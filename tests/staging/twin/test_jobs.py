"""Background jobs: retries and their waits, the bound of the queue, and the dead set. On a virtual clock."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from replay.staging.twin.jobs import JobQueue, Limits
from replay.staging.twin.spec import Jobs
from replay.staging.twin.wire import Request
from replay.staging.twin.world import World
from tests.support.twins import hosted, virtually, world_of

JOB = Request("POST", "/job")


class Work:
    """Takes `seconds` for each try, and fails the first `failures` tries of each job."""

    def __init__(self, seconds: float = 0.0, failures: int = 0) -> None:
        self.seconds, self.failures = seconds, failures
        self.began_s: list[float] = []
        self.tries: Counter[str] = Counter()

    async def __call__(self, request: Request) -> str:
        self.began_s.append(trio.current_time())
        self.tries[request.path] += 1
        tried = self.tries[request.path]
        assert request.retry == tried - 1
        await trio.sleep(self.seconds)
        return "no luck" if tried <= self.failures else ""


def queue_of(world: World, jobs: Jobs, work: Work) -> JobQueue:
    def limits() -> Limits:
        return Limits(jobs.workers, jobs.queue, jobs.dead)

    return JobQueue(world, "app", "app.jobs", limits, lambda: jobs, work)


def figures(world: World) -> dict[str, Any]:
    found = world.figures.document()
    names = ("enqueued", "done", "retries", "died", "refused", "dead")
    return {name: found[f"app.jobs.{name}"] for name in names}


def run_jobs(jobs: dict[str, Any], work: Work, count: int) -> dict[str, Any]:
    """The figures once all of `count` jobs, enqueued at the same instant, have come to an end."""
    found: dict[str, Any] = {}

    async def main() -> None:
        world = world_of({"services": {"app": {"jobs": jobs, "routes": {"all": {}}}}})
        given = world.twin.services["app"].jobs
        assert given is not None
        async with trio.open_nursery() as nursery:
            world.nursery = nursery
            queue = queue_of(world, given, work)
            for number in range(count):
                queue.enqueue(JOB._replace(path=f"/{number}"))
        found.update(figures(world))

    virtually(main)
    return found


def test_jobs_take_as_many_turns_as_their_workers_need() -> None:
    work = Work(seconds=1)
    assert run_jobs({"workers": 4}, work, 12)["done"] == 12
    first_s = work.began_s[0]
    assert [round(at_s - first_s) for at_s in work.began_s] == [0] * 4 + [1] * 4 + [2] * 4


def test_a_job_is_tried_again_after_waits_that_double() -> None:
    work = Work(failures=4)
    found = run_jobs({"retries": 5, "backoff": "10s", "backoff_max": "90s"}, work, 1)
    first_s = work.began_s[0]
    assert [at_s - first_s for at_s in work.began_s] == pytest.approx([0, 10, 30, 70, 150])
    assert (found["retries"], found["done"], found["died"]) == (4, 1, 0)


def test_a_job_is_tried_again_after_the_waits_of_sidekiq() -> None:
    work = Work(failures=4)
    run_jobs({"retries": 4, "backoff": "15s", "backoff_max": "1d", "growth": "sidekiq"}, work, 1)
    waits_s = [later - earlier for earlier, later in zip(work.began_s, work.began_s[1:], strict=False)]
    assert waits_s == pytest.approx([15, 16, 31, 96])


def test_a_job_that_fails_for_good_is_dead_after_all_its_tries() -> None:
    work = Work(failures=99)
    found = run_jobs({"retries": 3}, work, 7)
    assert set(work.tries.values()) == {4}
    assert (found["retries"], found["died"], found["dead"], found["done"]) == (21, 7, 7, 0)


def test_the_dead_set_keeps_its_newest() -> None:
    found = run_jobs({"dead": 5, "workers": 1}, Work(failures=99), 12)
    assert (found["died"], found["dead"]) == (12, 5)


def test_jobs_that_arrive_at_the_same_instant_respect_the_bound() -> None:
    found = run_jobs({"workers": 2, "queue": 3}, Work(seconds=1), 20)
    assert (found["enqueued"], found["refused"], found["done"]) == (5, 15, 5)


def test_a_request_whose_jobs_find_no_place_fails() -> None:
    async def main() -> None:
        routes = {"all": {"jobs": 4}}
        jobs = {"workers": 1, "queue": 2, "time": "1s"}
        async with hosted({"services": {"app": {"jobs": jobs, "routes": routes}}}) as host:
            assert (await host.handle(JOB)).status == 503
            assert figures(host._world)["enqueued"] == 3
            assert figures(host._world)["refused"] == 1

    virtually(main)


def test_a_dead_set_that_is_made_smaller_shrinks_with_the_next_job() -> None:
    async def main() -> None:
        world = world_of({"services": {"app": {"jobs": {}, "routes": {"all": {}}}}})
        given = world.twin.services["app"].jobs
        assert given is not None
        async with trio.open_nursery() as nursery:
            world.nursery = nursery
            queue = queue_of(world, given, Work(failures=99))
            for number in range(9):
                queue.enqueue(JOB._replace(path=f"/{number}"))
            await trio.sleep(1)
            given.dead = 2
            queue.enqueue(JOB._replace(path="/last"))
        assert figures(world)["dead"] == 2

    virtually(main)
