"""Comparing builds: the decision, what may be compared with what, and the real command with its files and codes."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from replay.comparison.decision import Finding, Options, decide
from replay.comparison.document import ComparisonDocument
from replay.comparison.metrics import Metric
from replay.comparison.sides import Side
from replay.comparison.verdict import Comparison, compare
from replay.comparison.words import overall
from replay.errors import InputError, UsageError
from replay.ledger.histogram import Layout, empty
from replay.results import hlog
from replay_native.ground import jit
from replay_native.ledger import hdr
from tests.support.compare_data import annotations_of, junit_of, make_run, make_side, markdown_of, rewrite
from tests.support.metrics_data import ROUTES
from tests.support.places import DATA

INF = math.inf
JUNIT = DATA / "junit.xsd"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base-*, same-*, slow-* (one route 40% slower), fast-*, failing-*: five runs each."""
    jit.warm(["statistics.rank"])
    folder = tmp_path_factory.mktemp("sides")
    for number, (label, more) in enumerate(SIDES.items()):
        make_side(folder, label, 5, 1_000 * number, **more)
    return folder


VERDICTS = ("REGRESSION", "IMPROVEMENT", "NO_REGRESSION", "INCONCLUSIVE")
SIDES: dict[str, dict[str, object]] = {
    "base": {},
    "same": {},
    "slow": {"slower": {0: 1.4}},
    "fast": {"slower": {0: 0.6, 1: 0.6}},
    "failing": {"failing": 0.05},
}


def side(folder: Path, label: str, count: int = 5, name: str = "") -> str:
    return f"{name or label}=" + ",".join(str(folder / f"{label}-{n}") for n in range(count))


def of(found: Comparison, metric: str, route: str = ""):
    return next(f for f in found.findings if (f.metric.name, f.metric.route) == (metric, route))


@pytest.mark.parametrize(
    ("effect", "low", "high", "verdict"),
    [
        (0.20, 0.05, 0.35, "REGRESSION"),
        (0.08, 0.05, 0.11, "INCONCLUSIVE"),
        (0.08, 0.05, 0.095, "NO_REGRESSION"),
        (0.20, -0.01, 0.40, "INCONCLUSIVE"),
        (-0.20, -0.35, -0.05, "IMPROVEMENT"),
        (-0.05, -0.08, -0.02, "NO_REGRESSION"),
        (0.0, -0.09, 0.09, "NO_REGRESSION"),
        (0.0, -0.11, 0.10, "INCONCLUSIVE"),
        (0.3, -INF, INF, "INCONCLUSIVE"),
    ],
)
def test_the_rule(effect, low, high, verdict):
    assert decide(effect, low, high, 0.1, base_at_least=False, new_at_least=False) == verdict


def test_a_lower_bound_cannot_carry_what_it_might_undo():
    def rule(effect, low, high, **flags):
        return decide(effect, low, high, 0.1, **({"base_at_least": False, "new_at_least": False} | flags))

    assert rule(0.5, 0.2, 0.8, new_at_least=True) == "REGRESSION"
    assert rule(0.5, 0.2, 0.8, base_at_least=True) == "INCONCLUSIVE"
    assert rule(0.0, -0.05, 0.05, base_at_least=True) == "NO_REGRESSION"
    assert rule(0.0, -0.05, 0.05, new_at_least=True) == "INCONCLUSIVE"
    assert rule(-0.5, -0.8, -0.2, new_at_least=True) == "INCONCLUSIVE"


def test_one_route_slower_is_found_and_the_other_is_not_accused(runs):
    found = compare(side(runs, "base"), side(runs, "slow"))
    assert found.verdict == "REGRESSION" and int(found.exit_code) == 99
    slow = of(found, "p50", ROUTES[0])
    assert slow.verdict == "REGRESSION"
    assert slow.low < 0.4 < slow.high and slow.change == pytest.approx(0.4, abs=0.12)
    assert of(found, "p50", ROUTES[1]).verdict in ("NO_REGRESSION", "INCONCLUSIVE")
    assert "slow is worse than base" in found.sentence


def test_the_same_build_is_no_regression_where_the_tolerance_allows_to_tell(runs):
    found = compare(side(runs, "base"), side(runs, "same"), Options(tolerance=0.4))
    assert found.verdict == "NO_REGRESSION" and int(found.exit_code) == 0
    assert all(finding.high < 0.4 for finding in found.findings if finding.metric.is_latency)
    assert "same is not slower than base by 40% or more" in found.sentence


def test_a_tolerance_that_noise_exceeds_is_inconclusive_and_says_what_it_would_take(runs):
    found = compare(side(runs, "base"), side(runs, "same"), Options(tolerance=0.005))
    assert found.verdict == "INCONCLUSIVE" and int(found.exit_code) == 0
    open_ = [f for f in found.findings if f.verdict == "INCONCLUSIVE"]
    assert open_ and all(f.runs_needed is None or f.runs_needed > 5 for f in open_)
    assert 0.005 < found.caught < 1 and ("runs per side" in found.sentence)


def test_a_faster_build_is_an_improvement(runs):
    found = compare(side(runs, "base"), side(runs, "fast"))
    assert of(found, "p50").verdict == "IMPROVEMENT"
    assert found.verdict == "IMPROVEMENT" and int(found.exit_code) == 0


def test_errors_are_a_metric_in_points(runs):
    found = compare(side(runs, "base"), side(runs, "failing"))
    errors = of(found, "errors")
    assert (
        errors.verdict == "REGRESSION" and errors.change == pytest.approx(0.05, abs=0.01) and errors.base == 0
    )


def test_p99_of_a_small_route_is_left_out_by_name(runs):
    found = compare(side(runs, "base"), side(runs, "same"))
    assert f"{ROUTES[1]} p99: needs 1,000 requests per run, and a run has only 120" in found.left_out
    assert ROUTES[1] in {f.metric.route for f in found.findings}


def test_the_order_of_the_arguments_does_not_matter_to_labels(runs):
    a = compare(side(runs, "base"), side(runs, "slow", name="new"))
    b = compare(side(runs, "slow", name="new"), side(runs, "base"))
    assert (a.verdict, a.sentence) == (b.verdict, b.sentence)


def test_metrics_and_routes_by_option(runs):
    options = Options(metrics=("p90", "service.p50"), routes=(ROUTES[1],))
    found = compare(side(runs, "base"), side(runs, "same"), options)
    assert [(f.metric.where, f.metric.name) for f in found.findings] == [
        ("all", "p90"), ("all", "service.p50"), (ROUTES[1], "p90"), (ROUTES[1], "service.p50"),
    ]  # fmt: skip


def test_a_folder_of_runs_is_a_side(runs, tmp_path):
    for label in ("base", "slow"):
        (tmp_path / label).mkdir()
        for n in range(5):
            (tmp_path / label / str(n)).symlink_to(runs / f"{label}-{n}")
    assert compare(str(tmp_path / "base"), str(tmp_path / "slow")).verdict == "REGRESSION"


def test_interleaved_runs_are_permuted_within_their_blocks(tmp_path):
    places = {"base": [0, 3, 5, 6, 8, 11], "new": [1, 2, 4, 7, 9, 10]}
    sides = []
    for label, numbers in places.items():
        paths = [
            make_run(
                tmp_path / f"{label}{n}",
                seed=n,
                number=n,
                requests=300,
                slower={0: 1.0 + 0.5 * (label == "new")},
            )
            for n in numbers
        ]
        sides.append(f"{label}=" + ",".join(map(str, paths)))
    base, new = sides
    found = compare(base, new, Options(metrics=("p50",), routes=1))
    assert (found.design, found.labellings) == ("labels within 3 blocks", 216)
    assert found.verdict == "REGRESSION"
    assert of(found, "p50").p_adjusted == pytest.approx(2 / 216)
    assert compare(base, new, Options(design="labels", metrics=("p50",))).labellings == 924
    with pytest.raises(UsageError, match="pairs are too few"):
        compare(base, new, Options(design="pairs"))


def test_one_run_a_side_shows_effect_sizes_and_concludes_nothing(runs):
    found = compare(str(runs / "base-0"), str(runs / "slow-0"))
    assert found.verdict == "INCONCLUSIVE" and "one run of base and of new" in found.reasons[0]
    slow = of(found, "p50", ROUTES[0])
    assert slow.within_run and slow.p_adjusted is None and 0 < slow.low < slow.change < slow.high
    assert all(f.verdict == "INCONCLUSIVE" for f in found.findings) and math.isinf(found.caught)


@pytest.mark.parametrize("count", [2, 3])
def test_too_few_runs_never_say_no_regression(runs, count):
    found = compare(side(runs, "base", count), side(runs, "same", count), Options(tolerance=5.0))
    assert found.verdict == "INCONCLUSIVE" and "too few runs" in found.sentence


def changed_side(tmp_path: Path, **changed: object) -> str:
    paths = [make_run(tmp_path / str(n), seed=n, requests=200) for n in range(4)]
    for path in paths:
        rewrite(path, **changed)
    return "new=" + ",".join(map(str, paths))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"trace": {"path": "u", "digest": "d2", "rows": 1, "first_at_ns": 0, "last_at_ns": 1}},
            "different recordings",
        ),
        ({"scenario": {"speed": 2.0}}, "different scenarios (speed)"),
        ({"host": {"name": "elsewhere"}}, "different machines"),
        ({"closed_loop": True}, "closed loop"),
    ],
)
def test_runs_of_other_circumstances_conclude_nothing(runs, tmp_path, changed, said):
    found = compare(side(runs, "base"), changed_side(tmp_path, **changed))
    assert found.verdict == "INCONCLUSIVE"
    assert any(said in reason for reason in found.reasons), found.reasons
    assert found.findings


def test_an_invalid_run_is_refused_by_name(runs, tmp_path):
    reason = {"code": "LATE", "verdict": "INVALID", "message": "too late", "advice": "x"}
    bad = changed_side(tmp_path, validity={"verdict": "INVALID", "reasons": [reason]})
    found = compare(side(runs, "base"), bad)
    assert found.verdict == "INVALID" and int(found.exit_code) == 4 and not found.findings
    assert str(tmp_path / "0") in found.sentence and "too late" in found.sentence


def test_a_run_that_was_cut_off_leaves_a_doubt(runs, tmp_path):
    new = side(runs, "same", 4) + f",{make_run(tmp_path / 'r', seed=9)}"
    rewrite(tmp_path / "r", ending={"how": "killed"})
    found = compare(side(runs, "base"), new, Options(tolerance=0.5))
    assert found.verdict == "INCONCLUSIVE" and "did not end normally" in found.sentence


def test_where_no_latency_can_be_tested_it_never_says_no_regression(tmp_path):
    sides = [make_side(tmp_path, label, 4, seed, requests=15) for label, seed in (("base", 1), ("new", 50))]
    base, new = sides
    found = compare(base, new, Options(tolerance=0.5))
    assert [f.metric.name for f in found.findings] == ["errors"]
    assert (
        found.verdict == "INCONCLUSIVE" and "no latency could be tested: all p50: needs 20" in found.sentence
    )
    assert compare(base, new, Options(metrics=("errors",))).verdict == "NO_REGRESSION"


@given(
    st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=6),
    st.lists(st.just("a reason"), max_size=1),
    st.lists(st.just("a doubt"), max_size=1),
)
def test_no_regression_is_said_only_where_every_metric_says_so(verdicts, reasons, doubts):
    findings = [
        Finding(Metric("response", 50.0 + at), word, 1e6, 1e6, 0.0, -0.05, 0.05, False, 1.0, 4, 0.2)
        for at, word in enumerate(verdicts)
    ]
    verdict, sentence = overall(findings, reasons, doubts, Side("base", ()), Side("new", ()), Options())
    settled = not reasons and not doubts and not {"REGRESSION", "INCONCLUSIVE"} & set(verdicts)
    assert (verdict in ("NO_REGRESSION", "IMPROVEMENT")) == settled
    assert (verdict == "REGRESSION") == ("REGRESSION" in verdicts and not reasons)
    assert sentence


@pytest.mark.parametrize("cut", ["at a line", "within a line", "everything"])
def test_totals_that_are_cut_short_are_refused_by_name(runs, tmp_path, command, cut):
    new = changed_side(tmp_path)
    path = tmp_path / "0" / "totals.hlog"
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes({"at a line": b"".join(lines[:-1]), "within a line": data[:-30], "everything": b""}[cut])
    done = command(side(runs, "base"), new, "-m", "service.p50")
    assert (done.returncode, done.stdout) == (2, "") and str(path) in done.stderr
    assert len(done.stderr.splitlines()) == 1 and ("cut short" in done.stderr or "damaged" in done.stderr)


def test_runs_that_are_all_the_same_differ_by_nothing(runs, tmp_path):
    copies = [shutil.copytree(runs / "base-0", tmp_path / str(n)) for n in range(14)]
    found = compare("base=" + ",".join(map(str, copies[:7])), "new=" + ",".join(map(str, copies[7:])))
    assert found.verdict == "NO_REGRESSION"
    assert all((f.low, f.change, f.high) == (0, 0, 0) for f in found.findings)


def test_a_run_given_twice_is_refused(runs):
    with pytest.raises(UsageError, match="given twice"):
        compare(str(runs / "base-0"), f"{runs / 'base-0'},{runs / 'base-1'}")


def write_log(path: Path, tags: dict[str, np.ndarray], layout: Layout, header: str = "") -> Path:
    lines = [header.encode()]
    for at, (tag, values) in enumerate(tags.items()):
        histogram = empty(layout)
        hdr.record_all(histogram.counts, layout.half, np.asarray(values, np.int64))
        text = hlog.line(tag or "x", at, 1.0, histogram).decode()
        lines.append((text if tag else text.partition(",")[2]).encode())
    path.write_bytes(b"".join(lines))
    return path


def logs(
    folder: Path, label: str, factor: float, layout: Layout, unit: str = "", tag: str = "GET", runs: int = 4
) -> str:
    paths = []
    for n in range(runs):
        rng = np.random.default_rng(n + (100 if label == "new" else 0))
        values = np.minimum(rng.lognormal(8, 0.4, 2_000) * factor, layout.highest)
        header = f"#[unit: {unit}]\n".replace("[", "").replace("]", "") if unit else ""
        paths.append(write_log(folder / f"{label}{n}.hlog", {tag: values}, layout, header))
    return f"{label}=" + ",".join(map(str, paths))


def test_logs_of_other_ranges_and_digits_and_units(tmp_path):
    base = logs(tmp_path, "base", 1.0, Layout(3, 1, 3_600_000_000), "us")
    new = logs(tmp_path, "new", 1_500.0, Layout(2, 1, 3_600_000_000_000), "ns")
    found = compare(base, new)
    assert found.verdict == "REGRESSION"
    assert of(found, "p50", "GET").change == pytest.approx(0.5, abs=0.1)
    assert of(found, "p50").base == pytest.approx(math.exp(8) * 1_000, rel=0.1)
    assert "errors: a log does not record how requests ended" in found.left_out


def test_a_log_without_a_unit_needs_one(tmp_path):
    base, new = (logs(tmp_path, label, 1.0, Layout(3)) for label in ("base", "new"))
    with pytest.raises(UsageError, match="does not state the unit"):
        compare(base, new)
    assert compare(base, new, Options(unit="us", tolerance=0.5)).verdict == "NO_REGRESSION"
    with pytest.raises(UsageError, match="is not a unit"):
        compare(base, new, Options(unit="parsecs"))


def test_a_route_in_one_side_only_is_named_and_leaves_a_doubt(tmp_path):
    base, new = (
        logs(tmp_path, "base", 1.0, Layout(3), "us"),
        logs(tmp_path, "new", 1.0, Layout(3), "us", tag="PUT"),
    )
    found = compare(base, new, Options(tolerance=0.5))
    assert found.verdict == "INCONCLUSIVE"
    assert "PUT p50: base measured nothing (only in new)" in found.left_out


def test_a_damaged_log_is_read_as_far_as_it_goes_and_never_says_no_regression(tmp_path):
    base, new = (logs(tmp_path, label, 1.0, Layout(3), "us") for label in ("base", "new"))
    path = tmp_path / "new0.hlog"
    data = path.read_bytes()
    path.write_bytes(
        data + data.splitlines()[-1][: len(data) // 2] + b"\n" + b"Tag=GET,1.0,1.0,2.0,!!!notbase64\n"
    )
    found = compare(base, new, Options(tolerance=0.5))
    assert found.verdict == "INCONCLUSIVE" and "lines that were left out: 2" in found.sentence
    assert str(path) in found.sentence
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"new0\.hlog holds no histograms"):
        compare(base, new)


def test_an_empty_histogram_is_refused(tmp_path):
    base, new = (logs(tmp_path, label, 1.0, Layout(3), "us") for label in ("base", "new"))
    write_log(tmp_path / "new1.hlog", {"GET": np.zeros(0)}, Layout(3), "#unit: us\n")
    with pytest.raises(InputError, match=r"new1\.hlog holds only empty histograms"):
        compare(base, new)


def test_a_clock_that_jumps_and_tags_out_of_order_harm_nothing(tmp_path):
    base, new = (logs(tmp_path, label, 1.0, Layout(3), "us") for label in ("base", "new"))
    path = tmp_path / "new2.hlog"
    row = path.read_bytes().splitlines()[-1]
    tag, _, length, rest = row.split(b",", 3)
    jumped = b"\n".join(
        [b"#unit: us", b",".join([tag, b"900.0", length, rest]), b",".join([tag, b"3.0", length, rest])]
    )
    path.write_bytes(jumped + b"\n")
    found = compare(base, new, Options(tolerance=0.5))
    assert found.verdict == "NO_REGRESSION" and any(
        "lines at which time goes back: 1" in note for note in found.notes
    )


def test_not_a_number_in_a_log_is_named(tmp_path):
    base, new = (logs(tmp_path, label, 1.0, Layout(3), "us") for label in ("base", "new"))
    path = tmp_path / "new3.hlog"
    path.write_bytes(path.read_bytes().replace(b"Tag=GET,0.000", b"Tag=GET,NaN"))
    with pytest.raises(InputError, match=r"new3\.hlog holds no histograms .*not a finite number"):
        compare(base, new)


def test_our_own_totals_are_read_as_logs_too(runs):
    sides = [
        ",".join(str(runs / f"{label}-{n}" / "totals.hlog") for n in range(5)) for label in ("base", "slow")
    ]
    base, new = sides
    found = compare(base, new)
    whole = compare(side(runs, "base"), side(runs, "slow"))
    assert [(f.metric, f.change) for f in found.findings] == [(f.metric, f.change) for f in whole.findings]


def test_an_untagged_log_is_one_route(tmp_path):
    base, new = (logs(tmp_path, label, 1.0, Layout(3), "us", tag="") for label in ("base", "new"))
    assert {f.metric.where for f in compare(base, new).findings} == {"all"}


@pytest.fixture
def command(tmp_path: Path) -> Command:
    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "replay.cli", "compare", *map(str, arguments)]
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "REPLAY_DEBUG"))
        }
        return subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=clean | env
        )

    return run


def test_every_file_of_a_regression(command, runs, tmp_path):
    (tmp_path / "summary.md").write_text("before\n")
    files = ["--json", "out.json", "--markdown", "summary.md", "--junit", "junit.xml"]
    done = command(side(runs, "base"), side(runs, "slow"), *files)
    assert done.returncode == 99, done.stderr
    assert done.stdout.startswith("REGRESSION: slow is worse than base") and "::error" not in done.stdout
    document = msgspec.json.decode((tmp_path / "out.json").read_bytes(), type=ComparisonDocument)
    assert (document.verdict, document.exit_code, document.format_version) == ("REGRESSION", 99, 1)
    plain = json.loads((tmp_path / "out.json").read_text())
    names = {"route", "metric", "verdict", "change", "interval", "p_adjusted", "runs_needed"}
    assert plain["metrics"] and all(names <= row.keys() for row in plain["metrics"])
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("before\n### ❌ REGRESSION") and "| `GET /users/{id}` | p50 |" in summary
    schema = xmlschema.XMLSchema(JUNIT)
    schema.validate(tmp_path / "junit.xml")
    assert '<failure message="+4' in (tmp_path / "junit.xml").read_text()


def test_no_regression_exits_0(command, runs):
    done = command(side(runs, "base"), side(runs, "same"), "--tolerance", "40%")
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "NO_REGRESSION")


def test_improvement_exits_0(command, runs):
    done = command(side(runs, "base"), side(runs, "fast"), "--fail-on", "inconclusive")
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "IMPROVEMENT")


def test_inconclusive_exits_0_or_3_as_asked(command, runs):
    sides = side(runs, "base", 3), side(runs, "same", 3)
    assert command(*sides).returncode == 0
    done = command(*sides, "--fail-on", "inconclusive")
    assert done.returncode == 3 and done.stdout.startswith("INCONCLUSIVE")


def test_an_invalid_run_exits_4(command, runs, tmp_path):
    bad = changed_side(tmp_path, validity={"verdict": "INVALID", "reasons": []})
    done = command(side(runs, "base"), bad, "--junit", "j.xml")
    assert done.returncode == 4 and done.stdout.startswith("INVALID")
    xmlschema.XMLSchema(JUNIT).validate(tmp_path / "j.xml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none", "none2"), "none does not exist"),
        (("base=", "x"), "lists no runs"),
        (("{base}", "{same}", "--tolerance", "ten"), "--tolerance: 'ten' is not a tolerance"),
        (("{base}", "{same}", "--tolerance", "0"), "--tolerance: '0' is not a tolerance"),
        (("{base}", "{same}", "-m", "p100"), "the maximum depend on a single request"),
        (("{base}", "{same}", "-m", "mean"), "'mean' is not a metric"),
        (("{base}", "{same}", "--json", "-", "--junit", "-"), "only one of"),
        (("{base}", "{same}", "--json", "no/such/folder.json"), "no/such/folder.json cannot be written"),
        (("{base}", "{same}", "--design", "pairs"), "5 pairs are too few"),
        (("a={one}", "a={two}"), "both sides are called 'a'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(command, runs, arguments, said):
    words = {
        "base": side(runs, "base"),
        "same": side(runs, "same"),
        "one": runs / "base-0",
        "two": runs / "same-0",
    }
    done = command(*(word.format(**words) for word in arguments))
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_annotations_in_actions_and_a_file_on_stdout(command, runs):
    done = command(side(runs, "base"), side(runs, "slow"), "--json", "-", GITHUB_ACTIONS="true")
    assert json.loads(done.stdout)["verdict"] == "REGRESSION"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("::error title=replay%3A REGRESSION::slow is worse") and 2 <= len(lines) <= 10


@pytest.mark.parametrize(
    ("flag", "begins"), [("--markdown", "### ✅ NO_REGRESSION: "), ("--junit", "<?xml ")]
)
def test_a_summary_alone_on_stdout(command, runs, flag, begins):
    done = command(side(runs, "base"), side(runs, "same"), "--tolerance", "40%", flag, "-")
    assert done.returncode == 0 and done.stdout.startswith(begins) and "labellings" not in done.stdout


def test_an_interval_is_called_by_its_own_share(runs):
    found = compare(side(runs, "base"), side(runs, "same"), Options(alpha=0.01))
    assert "| 99% interval |" in markdown_of(found)


def test_outputs_are_safe_with_strange_names(tmp_path):
    tag = "GET_/<a>|&\x01"
    base, new = (
        logs(tmp_path, label, f, Layout(3), "us", tag=tag) for label, f in (("base", 1.0), ("new", 2.0))
    )
    found = compare(base, new)
    xmlschema.XMLSchema(JUNIT).validate(junit_of(found).decode())
    rows = [row for row in markdown_of(found).splitlines() if row.startswith("|")]
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert all(line.count("::") >= 2 and "\n" not in line for line in annotations_of(found))


def test_two_sides_of_eight_runs_with_many_metrics(runs):
    found = compare(
        side(runs, "base"), side(runs, "slow"), Options(metrics=("p50", "p90", "service.p50", "service.p90"))
    )
    assert len(found.findings) == 12 and found.exact
