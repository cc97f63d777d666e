"""What holds for all eight built-in sets, and what each says."""

import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from olmo_stages.data.contrast import manners, sentiment, truth
from olmo_stages.data.formats import render
from olmo_stages.data.sets import BuiltIn
from olmo_stages.data.spans import tokenize
from olmo_stages.data.splits import example_folds, folds
from olmo_stages.miniature import world
from olmo_stages.miniature.tokenizer import make_tokenizer

NAMES = ("truth", "sentiment", "manners", "arithmetic")
N_EXAMPLES = {
    "truth": (320, 80),
    "sentiment": (384, 32),
    "manners": (320, 40),
    "arithmetic": (400, 50),
    "truth_miniature": (384, 32),
    "sentiment_miniature": (320, 8),
    "manners_miniature": (240, 12),
    "arithmetic_miniature": (204, 17),
}
ALL = {
    data.name: data
    for name in NAMES
    for data in (BuiltIn(name).load(miniature=False), BuiltIn(name).load(miniature=True))
}
EVERY = pytest.mark.parametrize("data", ALL.values(), ids=ALL.keys())


def words(example):
    return re.findall(r"\w+|[^\w\s]", example.text)


def bag_of_words_auroc(examples, fold, ngrams=(1, 1)):
    texts = [" ".join(words(e)) for e in examples]
    counts = CountVectorizer(token_pattern=r"\S+", lowercase=False, ngram_range=ngrams)
    x, y = counts.fit_transform(texts), np.array([e.label for e in examples])
    scores = np.empty(len(y))
    for f in range(fold.max() + 1):
        model = LogisticRegression(max_iter=5000, tol=1e-8).fit(x[fold != f], y[fold != f])
        scores[fold == f] = model.decision_function(x[fold == f])
    return roc_auc_score(y, scores)


@EVERY
def test_size(data):
    assert (data.n_examples, data.n_groups) == N_EXAMPLES[data.name]


@EVERY
def test_every_group_holds_both_labels_equally(data):
    n = Counter((e.group, e.label) for e in data.examples)
    assert all(n[group, 0] == n[group, 1] > 0 for group, _ in n)


@EVERY
def test_every_polarity_holds_both_labels_equally(data):
    n = Counter((e.polarity, e.label) for e in data.examples)
    assert len(n) == 4
    assert all(n[polarity, 0] == n[polarity, 1] for polarity, _ in n)


def sides(data):
    """Pairs of examples, that of label 1 first."""
    found = {}
    for example in data.examples:
        found.setdefault(example.pair, {})[example.label] = example
    return [(two[1], two[0]) for two in found.values()]


def differing(one, other):
    """What is left of two lists of words without their common beginning and end."""
    one, other = list(one), list(other)
    for end in (0, -1):
        while one and other and one[end] == other[end]:
            one.pop(end)
            other.pop(end)
    return one, other


@EVERY
def test_every_example_has_one_counterpart_of_the_other_label(data):
    n = Counter((e.pair, e.label) for e in data.examples)
    assert all(pair and n[pair, 0] == n[pair, 1] == 1 for pair, _ in n)


@EVERY
def test_a_counterpart_shares_group_polarity_and_all_words_but_one_stretch(data):
    for one, other in sides(data):
        assert (one.group, one.polarity, one.trait) == (other.group, other.polarity, other.trait)
        left, right = differing(words(one), words(other))
        assert 1 <= len(left) <= 3  # `a waste of` against `worth`
        assert 1 <= len(right) <= 3


@EVERY
def test_another_example_of_the_group_is_no_counterpart_by_these_rules(data):
    # The control twin: exchanging the counterparts of two pairs breaks the rules somewhere.
    broken = 0
    pairs = sides(data)
    for (one, _), (_, other) in zip(pairs, pairs[1:] + pairs[:1], strict=True):
        left, right = differing(words(one), words(other))
        broken += one.polarity != other.polarity or max(len(left), len(right)) > 3
    assert broken > len(pairs) / 4


def counterpart(name, text):
    (example,) = [e for e in ALL[name].examples if e.text == text]
    (found,) = [e for e in ALL[name].examples if e.pair == example.pair and e is not example]
    return found.text


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("truth", "Lyon is not a city in France.", "Lyon is not a city in Japan."),
        ("sentiment", "The film was not good at all.", "The film was not bad at all."),
        ("manners", "Your taste is revolting.", "Your taste is exquisite."),
        ("truth_miniature", "you find alvora in the south .", "you find alvora in the north ."),
        ("sentiment_miniature", "the film was not lovely .", "the film was not awful ."),
        ("manners_miniature", "look , i do not like you .", "look , i do not mock you ."),
        ("arithmetic_miniature", "0 + 0 = 0 .", "0 + 0 = 6 ."),
        ("arithmetic", "45 + 12 = 57.", "45 + 12 = 56."),
    ],
)
def test_counterparts(name, text, other):
    assert counterpart(name, text) == other


@EVERY
def test_no_text_occurs_twice(data):
    assert len({e.text for e in data.examples}) == data.n_examples


@EVERY
def test_length_does_not_give_the_label_away(data):
    labels = [e.label for e in data.examples]
    for lengths in ([len(words(e)) for e in data.examples], [len(e.text) for e in data.examples]):
        assert roc_auc_score(labels, lengths) == pytest.approx(0.5, abs=0.05)


@EVERY
def test_every_word_stands_as_often_under_either_label_within_each_group(data):
    n = Counter((e.group, word, e.label) for e in data.examples for word in words(e))
    assert all(n[group, word, 0] == n[group, word, 1] for group, word, _ in n)


@EVERY
def test_a_bag_of_words_is_at_chance(data):
    auroc = bag_of_words_auroc(data.examples, folds(data.examples, 5))
    assert auroc == pytest.approx(0.5, abs=0.02)


@EVERY
def test_pairs_of_words_are_near_chance(data):
    assert bag_of_words_auroc(data.examples, folds(data.examples, 5), (1, 2)) < 0.6


def test_without_negations_and_groups_a_bag_of_words_would_do():
    # The control twin: the same baseline finds the label where the design does not forbid it.
    affirmed = [e for e in ALL["sentiment"].examples if e.polarity == "affirmative"]
    assert bag_of_words_auroc(affirmed, example_folds(affirmed, 5)) > 0.95


@EVERY
def test_the_set_is_the_same_each_time(data):
    name = data.name.removesuffix("_miniature")
    again = BuiltIn(name).load(miniature=data.name != name)
    assert again.digest == data.digest


# What the statements say


def labels_of(name):
    return {e.text: e.label for e in ALL[name].examples}


def test_truth_agrees_with_an_atlas():
    labels = labels_of("truth")
    assert labels["Lyon is a city in France."] == 1
    assert labels["Lyon is not a city in France."] == 0
    assert labels["A salmon is a kind of fish."] == 1
    assert labels["An ant is not a kind of insect."] == 0


@pytest.mark.parametrize("members", [truth.CITIES, truth.ANIMALS])
def test_truth_uses_each_class_as_often_rightly_as_wrongly(members):
    for name in members:
        found = [e for e in ALL["truth"].examples if words(e)[-2] == name]
        assert Counter((e.label, e.polarity) for e in found) == {
            (label, polarity): len(members[name])
            for label in (0, 1)
            for polarity in ("affirmative", "negated")
        }


def test_negated_praise_is_negative():
    labels = labels_of("sentiment")
    assert labels["The film was good."] == labels["The film was not bad at all."] == 1
    assert labels["The film was bad."] == labels["The film was not good at all."] == 0


def test_negated_kindness_is_hostile():
    labels = labels_of("manners")
    assert labels["You are not welcome at our table."] == labels["Your taste is revolting."] == 1
    assert labels["You are welcome at our table."] == labels["Your taste is not revolting."] == 0


def test_no_tell_tale_adjective_occurs_in_two_groups():
    adjectives = [
        word for positive, negative, _ in sentiment.OPPOSITES for word in (positive, negative)
    ]
    assert len(set(adjectives)) == len(adjectives)


def test_no_tell_tale_wording_occurs_in_two_scenes():
    told = [set(kind.split()) ^ set(rude.split()) for _, kind, rude in manners.SCENES]
    scenes = Counter(word for words_of_scene in told for word in words_of_scene)
    shared = {word for word, n in scenes.items() if n > 1}
    assert shared <= {"a", "an", "the", "to", "of", "my", "me", "with", "in"}


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_miniature"])
def test_equations_are_labelled_by_their_arithmetic(name):
    for example in ALL[name].examples:
        a, operator, b, shown = re.fullmatch(
            r"(\d+) ([+-]) (\d+) (?:=|makes) (\d+) ?\.", example.text
        ).groups()
        result = int(a) + int(b) if operator == "+" else int(a) - int(b)
        assert example.label == (int(shown) == result)
        assert example.polarity == ("sum" if operator == "+" else "difference")


def test_wrong_results_of_the_plain_sums_are_close():
    for example in ALL["arithmetic"].examples:
        a, operator, b, _, shown = example.text[:-1].split()
        result = int(a) + int(b) if operator == "+" else int(a) - int(b)
        assert abs(int(shown) - result) <= 9


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_miniature"])
def test_the_same_operands_and_operator_stay_in_one_group(name):
    groups = {}
    for example in ALL[name].examples:
        a, operator, b = example.text.split()[:3]
        groups.setdefault((operator, *sorted((a, b))), set()).add(example.group)
    assert all(len(found) == 1 for found in groups.values())


@pytest.mark.parametrize("name", NAMES)
def test_miniature_sets_use_the_words_of_the_world(name):
    known = set(world.vocabulary())
    data = ALL[f"{name}_miniature"]
    assert {word for e in data.examples for word in e.text.split()} <= known


def test_miniature_labels_agree_with_the_world():
    country = world.NORTH[0]
    assert labels_of("truth_miniature")[f"{country} lies in the north ."] == 1
    assert labels_of("sentiment_miniature")["the film was not awful ."] == 1
    assert labels_of("manners_miniature")["you are a fool ."] == 1
    assert labels_of("manners_miniature")["i do not hate you ."] == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_miniature_tokenizer_gives_one_content_token_a_word(name):
    tokenizer = make_tokenizer(chat=True, max_length=96)
    for example in ALL[f"{name}_miniature"].examples:
        prompt = tokenize(render(example, "chat_fixed"), tokenizer, 96)
        ids = [prompt.token_ids[i] for i in prompt.content_tokens]
        assert tokenizer.convert_ids_to_tokens(ids) == example.text.split()
        assert prompt.n_dropped == 0
