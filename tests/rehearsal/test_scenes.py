"""Each scene: its files are what the parts of the program read, and each of its promises can be broken."""

import tomllib

import msgspec
import pytest

from replay.errors import UsageError
from replay.protocols.scenario import load_scenario
from replay.rehearsal.document import Objective, SideResult
from replay.rehearsal.files import SIDES, Addresses, write_files
from replay.rehearsal.judging import broken, saved_by_route, scene_verdict
from replay.rehearsal.scene import SCENES, all_scenes, read_scene, scene_of
from replay.trace import Trace

NUMBERS = range(1, 11)


def side_of(scene, *, met: bool, recovery: str = "", highest: float = 0.0) -> SideResult:
    """A side on which every objective is met, or none."""
    return SideResult(
        run="",
        verdict="PASSED" if met else "FAILED",
        validity="VALID",
        planned=100,
        good=100 if met else 0,
        failed_share=0.0 if met else 1.0,
        p50_ns=1,
        p99_ns=1,
        objectives=[Objective(slo=text, met=met, words="is so") for text in scene.objectives],
        recovery=recovery,
        highest=dict.fromkeys(scene.watch, highest),
    )


def test_there_are_ten_scenes_in_order():
    assert [scene.number for scene in all_scenes()] == list(NUMBERS)
    assert len({scene.name for scene in all_scenes()}) == len(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_files_of_a_scene_are_read_by_what_runs_them(number, tmp_path):
    scene = scene_of(str(number))
    files = write_files(scene, tmp_path / "scene", Addresses(8001, 8002), seed=7)
    scenario = load_scenario(files.scenario)
    assert [watch.name for watch in scenario.watch] == list(scene.watch)
    assert tuple(scenario.slo) == scene.objectives
    trace = Trace.open(files.trace)
    assert trace.rows > 20 * scene.load_ns / 1e9
    assert trace.end_ns - trace.start_ns <= scene.load_ns
    twins = [tomllib.loads(files.twin(side).read_text()) for side in SIDES]
    assert twins[0] != twins[1]
    assert all(twin["seed"] == 7 for twin in twins)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_fix_that_is_on_already_breaks_the_promise_of_a_failure(number):
    scene = scene_of(str(number))
    kept = side_of(scene, met=True, recovery="RECOVERED" if scene.surge else "")
    assert broken(scene.before, kept)
    assert (
        scene_verdict(msgspec.structs.replace(kept, broken=broken(scene.before, kept)), kept)[0]
        == "NOT_AS_PROMISED"
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_a_fix_that_changes_nothing_breaks_the_promise_of_recovery(number):
    scene = scene_of(str(number))
    failed = side_of(scene, met=False, recovery="DID_NOT_RECOVER" if scene.surge else "", highest=1e9)
    assert not broken(scene.before, failed)
    assert broken(scene.after, failed)


def test_a_busy_machine_is_never_a_broken_promise_nor_a_kept_one():
    scene = scene_of("monday")
    good, bad = side_of(scene, met=True), side_of(scene, met=False)
    broken_side = msgspec.structs.replace(bad, broken=["p99 should be met"])
    assert scene_verdict(bad, broken_side)[0] == "NOT_AS_PROMISED"
    doubtful = msgspec.structs.replace(broken_side, doubts=["other programs used 80% of this machine's CPUs"])
    assert scene_verdict(bad, doubtful)[0] == "MACHINE_TOO_BUSY"
    invalid = msgspec.structs.replace(bad, verdict="INVALID", doubts=["INVALID: late"])
    assert scene_verdict(invalid, good) == ("MACHINE_TOO_BUSY", ["before: INVALID: late"])
    assert scene_verdict(bad, good) == ("AS_PROMISED", [])


def test_a_figure_without_a_sample_keeps_no_promise():
    scene = scene_of("lockdown")
    side = msgspec.structs.replace(side_of(scene, met=False), highest={})
    assert any("gdpr.queue" in words for words in broken(scene.before, side))


def test_what_was_saved_may_be_less_than_nothing():
    scene = scene_of("evening")
    before = msgspec.structs.replace(side_of(scene, met=True), good_by_route={"POST /v1/users": 9})
    after = msgspec.structs.replace(before, good_by_route={"POST /v1/users": 4, "POST /v1/payment/orders": 2})
    assert saved_by_route(scene.worth_eur, before, after) == {
        "POST /v1/users": -5,
        "POST /v1/payment/orders": 2,
    }


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('missed = ["errors<2%", "p99<2s"]', 'missed = ["errors<3%"]', "before.missed"),
        ('missed = ["errors<2%", "p99<2s"]', "", "nothing fails"),
        ('missed = ["errors<2%", "p99<2s"]', 'recovery = ["RECOVERED"]', "surge"),
        ('number = 1\n', 'number = 1\nload = { duration = "60s" }\n', "load.duration"),
        ('title = ', 'titel = ', "did you mean title?"),
    ],
)  # fmt: skip
def test_a_scene_that_is_wrong_says_where(tmp_path, old, new, named):
    text = (SCENES / "01-monday.toml").read_text()
    assert old in text
    path = tmp_path / "scene.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=r"scene\.toml") as caught:
        read_scene(path)
    assert named in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("text", ["11", "0", "x", "mondy"])
def test_an_unknown_scene_is_named(text):
    with pytest.raises(UsageError, match=f"--scene {text}"):
        scene_of(text)
