import json
from pathlib import Path

import pytest
from release_samples import stage_reports, write_sample

from pocketloop.cli.inspecting import diff, inspect_release
from pocketloop.contracts.errors import DataError
from pocketloop.contracts.home import Home
from pocketloop.data.comparing import compare, find_release


def test_a_release_is_found_by_adapter_by_what_came_before_it_and_by_digest(tmp_path: Path, home: Path) -> None:
    first, second, third = (write_sample(tmp_path, range(size)) for size in (40, 50, 60))
    folders = home / "releases"
    assert find_release(Home(), "a") == folders / third.digest
    assert find_release(Home(), "a~1") == folders / second.digest
    assert find_release(Home(), f"{second.digest[:10]}~1") == folders / first.digest
    assert find_release(Home(), first.digest) == folders / first.digest


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("b", "no dataset release; there are releases of: a"),
        ("a~2", "has 1 before it"),
        ("a~x", "such as a~1"),
        ("../../etc", "no dataset release"),
        ("00000000", "no dataset release"),
    ],
)
def test_a_name_that_means_no_release_is_refused(tmp_path: Path, home: Path, name: str, says: str) -> None:
    for size in (40, 50):
        write_sample(tmp_path, range(size))
    with pytest.raises(DataError, match=says):
        find_release(Home(), name)


def test_a_digest_that_fits_several_releases_is_refused(tmp_path: Path, home: Path) -> None:
    for name in ("abcd1", "abcd2"):
        (home / "releases" / name).mkdir(parents=True)
        (home / "releases" / name / "release.json").touch()
    with pytest.raises(DataError, match="2 releases begin so"):
        find_release(Home(), "abcd")


def test_a_comparison_counts_what_came_went_and_stayed(tmp_path: Path, home: Path) -> None:
    first = write_sample(tmp_path, range(60))
    reports = stage_reports(90, reference=first.digest)
    second = write_sample(
        tmp_path,
        range(30, 120),
        collect=reports["collect"].model_copy(update={"policies": ["2026-09"]}),
        scrub=reports["scrub"].model_copy(update={"found": {"PERSON": 5}, "scrubber": "y" * 64}),
        drift=reports["drift"],
    )
    found = compare(home / "releases" / first.digest, home / "releases" / second.digest)
    assert (found.examples.added, found.examples.removed, found.examples.kept) == (60, 30, 30)
    assert (found.groups.added, found.groups.removed, found.groups.kept) == (20, 10, 10)
    assert found.groups.first_removed == [f"g-{n}" for n in range(10)]
    assert found.moved == 0
    assert {name: pair[1] for name, pair in found.splits.items()} == second.splits
    assert found.labels["music"] == (20, 30)
    assert found.found == {"PERSON": (3, 5), "EMAIL_ADDRESS": (1, 0)}
    assert found.left_out["label: thumbs down"] == (1, 1)
    assert (found.policies_added, found.policies_removed) == (["2026-09"], ["2026-01"])
    assert found.versions["scrubber"] == ("x" * 16, "y" * 16)
    assert found.columns["turns"].psi == 0.01
    back = compare(home / "releases" / second.digest, home / "releases" / first.digest)
    assert (back.examples.added, back.examples.removed) == (30, 60)
    assert back.columns["turns"].psi is None


def test_inspect_shows_a_release_and_its_files(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_sample(tmp_path, range(size)) for size in (40, 60))
    inspect_release("a", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["release"]["digest"], shown["parents"]) == (second.digest, [first.digest])
    assert Path(shown["folder"], "card.html").is_file()
    inspect_release("a", as_json=False)
    text = capsys.readouterr().out
    for said in (second.digest[:16], "thumbs down", "music", "card.html", "pocketloop data diff a~1 a", "0 survived"):
        assert said in text


def test_diff_says_what_changed(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_sample(tmp_path, range(60))
    write_sample(tmp_path, range(90), drift=stage_reports(90, reference=first.digest)["drift"])
    diff("a~1", "a", as_json=True)
    assert json.loads(capsys.readouterr().out)["examples"]["added"] == 30
    diff("a~1", "a")
    text = capsys.readouterr().out
    for said in ("30 added, 0 removed, 60 in both", "turns", "0.010", "policies  the same"):
        assert said in text
    diff("a", "a")
    assert "the same release" in capsys.readouterr().out
