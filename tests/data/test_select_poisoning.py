from pathlib import Path

import pytest
from selection_samples import call, intent, recipe, run_select, sentences

from pocketloop.contracts.errors import DataError
from pocketloop.contracts.examples import Example
from pocketloop.contracts.files import write_jsonl

CROWD = 40


def crowd(label: str, per_device: int, seed: int) -> list[Example]:
    """What many devices say of one label."""
    texts = iter(sentences(CROWD * per_device, seed))
    return [intent(next(texts), label, f"g{device}") for device in range(CROWD) for _ in range(per_device)]


def release(folder: Path, examples: list[Example]) -> Path:
    """As much of a previous release as select looks at."""
    write_jsonl(folder / "splits" / "train.jsonl", examples[::2])
    write_jsonl(folder / "splits" / "validation.jsonl", [])
    write_jsonl(folder / "splits" / "test.jsonl", examples[1::2])
    return folder


def test_a_device_that_gives_most_of_a_label_is_left_out_of_that_label_only(tmp_path: Path) -> None:
    attack = [intent(text, "wire_money", "mallory") for text in sentences(60, 2)]
    honest = [intent(text, "music", "mallory") for text in sentences(5, 3)]
    examples = [*crowd("music", 2, 1), *crowd("wire_money", 1, 4), *attack, *honest]
    report, kept, quarantined = run_select(tmp_path, examples, recipe(dominance=0.5))
    [seen] = report.guarded
    assert (seen.guard, seen.label, seen.examples, seen.devices) == ("dominance", "wire_money", 60, 1)
    assert seen.value == 0.6 and seen.bound == 0.5
    assert report.count.left_out == {"guard: dominance": 60} == {"guard: dominance": len(quarantined)}
    assert {e.answer.content for e in kept if e.group == "mallory"} == {"music"}


def test_a_few_devices_together_are_seen_as_well(tmp_path: Path) -> None:
    attack = [intent(text, "wire_money", f"mallory{n % 3}") for n, text in enumerate(sentences(300, 2))]
    examples = [*crowd("music", 1, 1), *crowd("wire_money", 1, 4)[:30], *attack]
    report, kept, _ = run_select(tmp_path, examples, recipe(dominance=0.5))
    [seen] = report.guarded
    assert (seen.devices, seen.examples, seen.bound) == (3, 300, 0.875)
    assert not [e for e in kept if e.group.startswith("mallory")]


def test_what_people_wrote_into_example_files_counts_towards_a_label_and_is_never_left_out(tmp_path: Path) -> None:
    files = [intent(text, "rare") for text in sentences(100, 5)]
    few = [intent(text, "rare", "g1") for text in sentences(30, 6)]
    report, kept, _ = run_select(tmp_path, [*crowd("music", 1, 1), *files, *few], recipe(dominance=0.5))
    assert (report.guarded, len(kept)) == ([], CROWD + 130)
    report, kept, _ = run_select(tmp_path, [*crowd("music", 1, 1), *files[:5], *few], recipe(dominance=0.5))
    assert report.guarded[0].examples == 30
    assert len(kept) == CROWD + 5


def test_rare_labels_and_small_fleets_are_no_attack(tmp_path: Path) -> None:
    rare = [intent(text, "rare", "g1") for text in sentences(10, 6)]
    assert run_select(tmp_path, [*crowd("music", 1, 1), *rare], recipe(dominance=0.5))[0].guarded == []
    small = [intent(text, "music", f"g{n % 4}") for n, text in enumerate(sentences(200, 6))]
    assert run_select(tmp_path, small, recipe(dominance=0.5))[0].guarded == []


def test_a_device_that_repeats_itself_does_not_make_others_look_small(tmp_path: Path) -> None:
    repeated = [intent("buy now", "shop", "mallory", f"e{n}") for n in range(500)]
    report, kept, _ = run_select(tmp_path, [*crowd("shop", 1, 1), *repeated], recipe(dominance=0.5))
    assert (report.guarded, report.count.left_out) == ([], {"duplicate conversation": 499})
    assert len(kept) == CROWD + 1


def test_a_phrasing_whose_answers_flip_keeps_its_old_label_and_loses_the_new_one(tmp_path: Path) -> None:
    before = release(
        tmp_path / "before",
        [call(f"lock the <ADDRESS_{n:06x}> door", "lock", f"g{n}", door=f"<ADDRESS_{n:06x}>") for n in range(6)],
    )
    doors = [f"<ADDRESS_{n:06x}>" for n in range(100, 112)]
    attack = [call(f"lock the {door} door", "unlock", f"m{n}", door=door) for n, door in enumerate(doors)]
    honest = [call(f"lock the {door} door", "lock", f"g{n}", door=door) for n, door in enumerate(doors[:4])]
    other = [call(f"open number {n}", "open", f"g{n}", number=n) for n in range(20)]
    examples = [*attack, *honest, *other]
    report, kept, _ = run_select(tmp_path, examples, recipe("function_call", flip=0.5), previous=before)
    [seen] = report.guarded
    assert (seen.guard, seen.label, seen.examples, seen.devices) == ("flip", "unlock", 12, 12)
    assert seen.value == pytest.approx(12 / 16)
    assert report.by_label == {"lock": 4, "open": 20}
    assert report.count.left_out == {"guard: flip": 12}
    assert len(kept) == 24


def test_a_flip_is_seen_although_its_copies_are_duplicates(tmp_path: Path) -> None:
    before = release(tmp_path / "before", [intent("play my music", "music", "g1"), intent("stop", "music", "g1")])
    attack = [intent("play my music", "alarm", f"m{n}") for n in range(9)]
    examples = [intent("play my music", "music", "g1"), *attack, intent("hello", "chat", "g2")]
    report, kept, _ = run_select(tmp_path, examples, recipe(flip=0.5), previous=before)
    assert report.guarded[0].label == "alarm"
    assert {e.answer.content for e in kept} == {"music", "chat"}


def test_the_same_answers_again_new_phrasings_and_a_single_voice_are_no_flip(tmp_path: Path) -> None:
    before = release(tmp_path / "before", [intent("play my music", "music", "g1"), intent("stop", "music", "g1")])
    examples = [intent("play my music", "music", f"g{n}") for n in range(30)]
    examples += [intent("play my music", "alarm", f"g{n}") for n in range(5)]
    examples += [intent("never said before", "alarm", f"g{n}") for n in range(30)]
    examples += [intent("stop", "alarm", "g1", f"e{n}") for n in range(30)]
    report, _, _ = run_select(tmp_path, examples, recipe(flip=0.5), previous=before)
    assert report.guarded == []


def test_the_run_stops_when_the_recipe_wants_a_person_to_look(tmp_path: Path) -> None:
    attack = [intent(text, "wire_money", "mallory") for text in sentences(60, 2)]
    config = recipe(dominance=0.5, on_poison="stop")
    with pytest.raises(DataError, match="dominance on `wire_money` 1.00 of at most 0.50") as caught:
        run_select(tmp_path, [*crowd("music", 1, 1), *attack], config)
    assert "mallory" not in str(caught.value)
