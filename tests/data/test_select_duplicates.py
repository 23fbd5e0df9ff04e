import random
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from selection_samples import call, intent, recipe, run_select, sentences

from pocketloop.data.select.keys import shingles, words
from pocketloop.data.select.near import near_duplicates


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def similarities(texts: list[str]) -> scipy.sparse.csr_matrix:
    """Jaccard similarity of all with all, by counting common shingles in a sparse product."""
    sets = [shingles(text) for text in texts]
    place = {shingle: at for at, shingle in enumerate(sorted(set().union(*sets)))}
    rows = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    columns = [place[shingle] for one in sets for shingle in one]
    present = scipy.sparse.csr_matrix((np.ones(len(columns)), (rows, columns)))
    common = (present @ present.T).tocoo()
    sizes = np.array([len(one) for one in sets])
    common.data /= sizes[common.row] + sizes[common.col] - common.data
    return common.tocsr()


def brute_force(alike: scipy.sparse.csr_matrix, bound: float) -> set[int]:
    dropped: set[int] = set()
    for later in range(alike.shape[0]):
        row = alike.getrow(later)
        near_ones = row.indices[row.data >= bound].tolist()
        if any(earlier < later and earlier not in dropped for earlier in near_ones):
            dropped.add(later)
    return dropped


def planted(seed: int) -> list[str]:
    """Sentences, and copies of every fifth with a letter or a word changed."""
    rng = random.Random(seed)
    texts = sentences(2500, seed)
    for text in texts[::5]:
        copy = list(text)
        for _ in range(rng.randint(1, 2)):
            copy[rng.randrange(len(copy))] = rng.choice("aeiou ")
        texts.append("".join(copy))
        texts.append(f"{text} {rng.choice(['please', 'now', 'thanks a lot'])}")
    rng.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def corpus() -> tuple[list[str], scipy.sparse.csr_matrix]:
    texts = planted(1)
    return texts, similarities(texts)


@pytest.mark.parametrize(("bound", "missed"), [(0.9, 0.0), (0.8, 0.02)])
def test_near_duplicates_are_those_that_comparing_all_with_all_finds(
    corpus: tuple[list[str], scipy.sparse.csr_matrix], bound: float, missed: float
) -> None:
    texts, alike = corpus
    expected, found = brute_force(alike, bound), near_duplicates(texts, bound)
    assert len(texts) > 3000 and len(expected) > 200
    assert len(expected - found) <= missed * len(expected)
    stays = np.array(sorted(set(range(len(texts))) - found))
    for at in found:
        assert alike[at, stays].max() >= bound


@given(st.lists(st.text("abcd ", max_size=30), max_size=25), st.sampled_from([0.5, 0.7, 0.9, 1.0]))
def test_nothing_is_dropped_without_a_neighbour_that_stays(texts: list[str], bound: float) -> None:
    dropped = near_duplicates(texts, bound)
    stays = [text for at, text in enumerate(texts) if at not in dropped]
    for at in dropped:
        assert any(jaccard(texts[at], text) >= bound for text in stays)
    equal = {text for text in texts if texts.count(text) > 1}
    assert all(stays.count(text) <= 1 for text in equal)


def test_a_crowd_of_like_texts_is_thinned_without_comparing_all_with_all() -> None:
    texts = [f"{'the very same long sentence that everybody says every day ' * 4}{n:04d}" for n in range(3000)]
    assert len(near_duplicates(texts, 0.9)) > 2950


def test_prompts_of_two_or_three_words_do_not_collapse_into_each_other(tmp_path: Path) -> None:
    short = [
        "lights on",
        "lights off",
        "light on",
        "stop it",
        "stop",
        "call mum",
        "call mom",
        "play it",
        "play",
        "👍",
        "👎",
    ]
    examples = [intent(text, "x") for text in short]
    _, kept, _ = run_select(tmp_path, examples, recipe(near_duplicates=0.9))
    assert len(kept) == len(short)


def test_case_punctuation_spacing_and_pseudonyms_make_no_difference(tmp_path: Path) -> None:
    examples = [
        intent("Tell <PERSON_0a0a0a> I'm late", "message", "g1"),
        intent("tell  <PERSON_0b0b0b>, I'm late!", "message", "g2"),
        intent("tell <ADDRESS_0b0b0b> I'm late", "message", "g3"),
    ]
    _, kept, quarantined = run_select(tmp_path, examples, recipe(near_duplicates=0.9))
    assert [row.reason for row in quarantined] == ["near duplicate"]
    assert "<ADDRESS_0b0b0b>" in {word for e in kept for word in e.prompt[0].content.split()}
    assert words("Tell <PERSON_0a0a0a>: it’s 5!") == ["tell", "<person>", "it’s", "5"]


def test_prompts_that_lead_to_different_answers_are_not_redundant(tmp_path: Path) -> None:
    long = "could you please be so kind and turn the lights in the living room to"
    examples = [call(f"{long} {level}", "set_lights", level=level) for level in (10, 11, 12)]
    examples += [intent("book it", "calendar"), intent("book it", "lists")]
    _, kept, quarantined = run_select(tmp_path, examples, recipe("function_call", near_duplicates=0.7))
    assert (len(kept), quarantined) == (5, [])


def test_an_example_that_a_person_wrote_stays_rather_than_its_copy_from_a_device(tmp_path: Path) -> None:
    examples = [intent(text, "x", "g1") for text in sentences(20, 8)]
    examples += [intent(text.upper() + "!", "x") for text in sentences(20, 8)]
    _, kept, _ = run_select(tmp_path, examples, recipe(near_duplicates=0.9))
    assert len(kept) == 20
    assert all(not example.event_ids for example in kept)
