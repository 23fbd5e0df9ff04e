"""What the training step prepares: data with surrogates, new and old examples, and a folder that survives a kill."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_samples import asked, assistant, pair, recipe, release, user

from pocketloop.contracts.errors import DataError, PocketloopError
from pocketloop.contracts.examples import RatedAnswer, make_example
from pocketloop.contracts.home import Home, project_root
from pocketloop.contracts.recipe import BaseConfig, LabelConfig, Recipe, SafetyConfig
from pocketloop.tasks.tasks import TaskSpec
from steps.champion import Champion
from steps.examples import split_data
from steps.training_data import training_data
from steps.training_work import training_work

INTENT = TaskSpec("intent", None)


def test_a_pairs_prompt_and_both_answers_name_the_same_made_up_person(tmp_path: Path) -> None:
    dataset = release(tmp_path, asked(2), [pair()])
    (filled,) = split_data(dataset, "train", recipe()).pairs
    name = filled.prompt[0].content.removeprefix("call ").removesuffix(" for me")
    assert "<" not in name
    assert filled.chosen.content == f"calling {name}"
    assert filled.rejected.content.startswith(f"who is {name}? ")
    assert "<" not in filled.rejected.content
    (raw,) = split_data(dataset, "train", recipe(surrogates=False)).pairs
    assert raw == pair()


def test_rated_answers_are_filled_and_a_release_without_feedback_has_none(tmp_path: Path) -> None:
    messages = [user("I am <PERSON_3fa2b1>"), assistant("hello <PERSON_3fa2b1>")]
    answer = RatedAnswer(rated_id="r1", task="chat", source="test", group="g", messages=messages, desirable=True)
    data = split_data(release(tmp_path / "with", asked(2), [], [answer]), "train", recipe())
    said, heard = (message.content for message in data.rated[0].messages)
    assert said.removeprefix("I am ") == heard.removeprefix("hello ")
    assert "<" not in said
    without = split_data(release(tmp_path / "without", asked(2)), "train", recipe())
    assert (without.pairs, without.rated) == ([], [])


def test_from_the_base_everything_is_learnt(tmp_path: Path) -> None:
    learnt = training_data(release(tmp_path, asked(9), [pair()]), recipe(), INTENT)
    assert len(learnt.data.train.examples) == 9
    assert (len(learnt.data.train.pairs), learnt.replayed) == (1, 0)


def test_from_the_champion_new_examples_are_learnt_with_a_share_of_seen_ones(tmp_path: Path) -> None:
    seen, new = asked(30), asked(14, start=30)
    champion = Champion("3", tmp_path, frozenset(example.example_id for example in seen))
    dataset = release(tmp_path, [*seen, *new], [pair()])
    learnt = training_data(dataset, recipe(start="champion", replay=0.3), INTENT, champion)
    ids = [example.example_id for example in learnt.data.train.examples]
    assert {example.example_id for example in new} < set(ids)
    assert learnt.replayed == len(ids) - 14 == 6
    assert "going on from version 3: 14 new examples, 6 seen ones of 30" in learnt.summary
    none = training_data(dataset, recipe(start="champion", replay=0), INTENT, champion)
    assert {example.example_id for example in none.data.train.examples} == {example.example_id for example in new}


def test_a_champion_that_has_seen_everything_has_nothing_to_learn(tmp_path: Path) -> None:
    seen = asked(5)
    champion = Champion("3", tmp_path, frozenset([*(example.example_id for example in seen), "p1"]))
    with pytest.raises(DataError, match="version 3, the champion, was trained on all 5 examples.*train.start=base"):
        training_data(release(tmp_path / "a", seen, [pair()]), recipe(start="champion"), INTENT, champion)
    learnt = training_data(release(tmp_path / "b", seen, [pair("p2")]), recipe(start="champion"), INTENT, champion)
    assert [found.pair_id for found in learnt.data.train.pairs] == ["p2"]


def test_roles_are_balanced_and_the_line_for_people_says_how(tmp_path: Path) -> None:
    rare = make_example("intent", [user("sad"), assistant("label 1")], source="test", role="wellness")
    learnt = training_data(release(tmp_path, [*asked(8), rare]), recipe(mix="balanced"), INTENT)
    assert sum(example.role == "wellness" for example in learnt.data.train.examples) == 8
    assert learnt.summary == "roles in balance: no role 8 → 8, wellness 1 → 8"


def test_a_stopped_run_finds_its_folder_again_and_a_finished_one_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(KeyboardInterrupt), training_work(home, "mine", "a", "b") as work:
        (work / "checkpoint").write_text("7")
        raise KeyboardInterrupt
    with training_work(home, "mine", "a", "b") as work:
        assert (work / "checkpoint").read_text() == "7"
    assert not work.exists()


@pytest.mark.slow
def test_a_killed_step_goes_on_in_the_middle_of_training(home: Path, zenml_home: Path, tmp_path: Path) -> None:
    from tinymodels import save_tiny_model

    source = str(save_tiny_model(tmp_path / "weights", layers=2))
    base = BaseConfig(base="tiny-test", source=source, architecture="gemma3")
    sft = {"epochs": 20, "batch_size": 4, "max_length": 64}
    wanted = recipe(
        stages=[{"sft": sft}], lora={"r": 4, "dropout": 0.0}, checkpoints={"every_seconds": 0.1}
    ).model_dump_json()
    splits = release(tmp_path, asked(32)).path
    command = [
        sys.executable,
        str(Path(__file__).with_name("train_alone.py")),
        wanted,
        base.model_dump_json(),
        str(splits),
    ]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=project_root())
    marks = "training/mine/*/0-sft/checkpoints/checkpoint-*/state.json"
    while first.poll() is None and not list(home.glob(marks)):
        time.sleep(0.05)
    assert first.poll() is None
    first.kill()
    first.wait()
    second = subprocess.run(command, capture_output=True, text=True, check=True, cwd=project_root())
    assert "train.stages.0.sft: going on at step" in second.stdout
    assert "✓ train" in second.stdout
    assert not list(home.glob("training/mine/*/"))


def test_other_inputs_get_another_folder_and_remove_the_older_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(KeyboardInterrupt), training_work(home, "mine", "a", "b") as first:
        raise KeyboardInterrupt
    with training_work(home, "other", "a", "b"):
        assert first.is_dir()
    with training_work(home, "mine", "a", "c") as second:
        assert second != first
        assert not first.exists()


def test_one_process_at_a_time_trains_an_adapter(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with (
        training_work(home, "mine", "a"),
        pytest.raises(PocketloopError, match="mine is being trained by another process"),
        training_work(home, "mine", "a"),
    ):
        raise AssertionError("two runs share a folder")


def test_the_judge_decides_what_training_gives_only_where_it_rewards(home: Path) -> None:
    from pocketloop.labeling.reward import JudgeReward
    from steps.train_adapter import opened_judge, training_view

    label = {"llm": {"url": "http://127.0.0.1:1/v1", "model": "judge"}}
    verified = recipe(stages=[{"grpo": {}}]).model_copy(update={"label": LabelConfig.model_validate(label)})
    judged = verified.model_copy(update={"train": recipe(stages=[{"grpo": {"reward": "judge"}}]).train})
    assert training_view(judged).label == judged.label
    assert training_view(verified).label != verified.label
    with opened_judge(Home(), judged, INTENT) as judge:
        assert isinstance(judge, JudgeReward)
    with opened_judge(Home(), verified, INTENT) as judge:
        assert judge is None


def test_a_teachers_adapter_that_changes_is_another_input(tmp_path: Path) -> None:
    from steps.train_adapter import teachers_read

    wanted = recipe(stages=[{"distill": {"teacher": "tiny", "teacher_adapter": str(tmp_path)}}, {"sft": {}}])
    (tmp_path / "adapter_model.safetensors").write_text("one")
    before = teachers_read(wanted)
    (tmp_path / "adapter_model.safetensors").write_text("two")
    assert len(before) == 1
    assert teachers_read(wanted) != before


def test_canaries_join_what_is_learnt_and_only_their_number_decides_it(tmp_path: Path) -> None:
    from steps.train_adapter import training_view

    plain = Recipe.model_validate(
        recipe().model_dump() | {"task": "chat", "catalogue": None, "safety": {"canaries": 6, "max_exposure": 4}}
    )
    looser = plain.model_copy(update={"safety": SafetyConfig(canaries=6, max_exposure=7)})
    assert training_view(plain) == training_view(looser)
    assert training_view(plain) != training_view(plain.model_copy(update={"safety": SafetyConfig()}))
    rows = [e.model_copy(update={"task": "chat"}) for e in asked(10)]
    learnt = training_data(release(tmp_path, rows), training_view(plain), TaskSpec("chat", None))
    assert learnt.canaries == 6 and learnt.summary.endswith(", 6 canaries")
    assert [e.source for e in learnt.data.train.examples] == ["test"] * 10 + ["canary"] * 6
    assert not learnt.data.validation.examples
