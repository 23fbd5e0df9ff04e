from pathlib import Path

import pytest

from pocketloop.contracts.errors import ConfigError
from pocketloop.contracts.recipe import NerConfig, ScrubConfig
from pocketloop.privacy.ner.engines import load_ner, ner_version
from pocketloop.privacy.recognizers import Analyzer
from pocketloop.privacy.scrubber import Scrubber

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "please", "ring", "grault", "garply", "tomorrow", "waldo", "##x"]


@pytest.fixture(scope="module")
def token_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that has learnt one sentence by heart: "grault garply" is a person."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(3)
    raw = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    labels = ["O", "B-PER", "I-PER"]
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    model = BertForTokenClassification(config)
    batch = tokenizer(["please ring grault garply tomorrow", "tomorrow please"], return_tensors="pt", padding=True)
    wanted = torch.zeros_like(batch["input_ids"])
    wanted[batch["input_ids"] == WORDS.index("grault")] = 1
    wanted[batch["input_ids"] == WORDS.index("garply")] = 2
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=wanted).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_transformers_model_finds_what_it_has_learnt_in_batches_and_in_long_texts(token_classifier: Path) -> None:
    ner = load_ner(NerConfig(engine="transformers", model=str(token_classifier)))
    assert ner is not None
    long = "please " * 150 + "ring grault garply"
    found = ner.find_many(["please ring grault garply tomorrow", "tomorrow", long])
    assert [(s.start, s.end, s.type) for s in found[0]] == [(12, 25, "PERSON")]
    assert found[1] == []
    assert {long[s.start : s.end] for s in found[2]} == {"grault garply"}


@pytest.mark.slow
def test_a_scrubber_uses_the_configured_engine_and_has_a_digest_of_its_own(token_classifier: Path) -> None:
    config = ScrubConfig(ner=NerConfig(engine="transformers", model=str(token_classifier)))
    scrubber = Scrubber(config, b"k" * 32)
    text = "please ring grault garply tomorrow"
    assert "grault garply" in [text[s.start : s.end] for s in scrubber.find(text)]
    assert scrubber.digest != Scrubber(ScrubConfig(), b"k" * 32).digest


@pytest.mark.slow
def test_a_model_whose_labels_nobody_maps_is_refused(token_classifier: Path) -> None:
    config = NerConfig(engine="transformers", model=str(token_classifier), labels={"LOC": "ADDRESS"})
    with pytest.raises(ConfigError, match="it has the labels O, PER"):
        load_ner(config)


def test_any_spacy_pipeline_can_stand_in(tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("de")
    nlp.add_pipe("entity_ruler").add_patterns(  # type: ignore[attr-defined]
        [{"label": "PER", "pattern": "Grault Garply"}, {"label": "LOC", "pattern": "Berlin"}]
    )
    nlp.to_disk(tmp_path / "model")
    ner = load_ner(NerConfig(engine="spacy", model=str(tmp_path / "model"), language="de"))
    assert ner is not None
    found = ner.find_many(["ruf Grault Garply in Berlin an", "danke"])
    assert [(s.start, s.end, s.type) for s in found[0]] == [(4, 17, "PERSON")]
    assert found[1] == []


def test_another_language_takes_its_own_words_apart_and_patterns_go_by_region() -> None:
    analyzer = Analyzer(NerConfig(language="de"))
    text = "ruf Xaver Quandtmeier an, 0171 1234567, er wohnt Zur Linde 4"
    found = {(text[s.start : s.end], s.type) for s in analyzer.find(text, "DE") if s.score >= 0.4}
    assert ("0171 1234567", "PHONE_NUMBER") in found
    assert ("Xaver Quandtmeier", "PERSON") in found
    assert ("Zur Linde 4", "ADDRESS") in found


def test_gliner_that_is_not_installed_is_said_so() -> None:
    from importlib.util import find_spec

    if find_spec("gliner"):
        pytest.skip("gliner is installed here")
    with pytest.raises(ConfigError, match="gliner is not installed"):
        load_ner(NerConfig(engine="gliner", model="urchade/gliner_multi_pii-v1", labels={"person name": "PERSON"}))


def test_a_model_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load spacy"):
        load_ner(NerConfig(engine="spacy", model=str(tmp_path / "none")))


def test_the_version_follows_the_models_bytes_wherever_they_lie(tmp_path: Path) -> None:
    import spacy

    config = {name: NerConfig(engine="spacy", model=str(tmp_path / name)) for name in ("a", "b")}
    for name in config:
        spacy.blank("en").to_disk(tmp_path / name)
    assert ner_version(config["a"]) == ner_version(config["b"])
    (tmp_path / "b" / "more").write_text("x")
    assert ner_version(config["a"]) != ner_version(config["b"])


def test_without_an_engine_only_patterns_look() -> None:
    assert load_ner(NerConfig(engine="none")) is None
    assert [s.type for s in Analyzer(NerConfig(engine="none")).find("dial 415-555-0123") if s.score > 0.1] == [
        "PHONE_NUMBER"
    ]
