from collections import Counter

import pytest

from olmo_stages.miniature import tasks, world

LABELS = {
    "truth": lambda s: (s.text.split()[-2] == world.REGION[s.group]) != s.negated,
    "arithmetic": lambda s: _value(s.group) == int(s.text.split()[-2]),
    "sentiment": lambda s: (s.group in world.GOOD_ADJECTIVES) != s.negated,
    "manners": lambda s: (s.group in world.KIND_NOUNS + world.KIND_VERBS) != s.negated,
}


def _value(expression: str) -> int:
    left, sign, right = expression.split()
    return int(left) + (1 if sign == "+" else -1) * int(right)


@pytest.mark.parametrize("concept", world.CONCEPTS)
def test_labels_agree_with_what_the_statement_says(concept):
    for statement in world.statements(concept):
        assert bool(statement.label) == LABELS[concept](statement), statement
        assert statement.negated == ("not" in statement.text.split())


@pytest.mark.parametrize("concept", world.CONCEPTS)
def test_labels_are_balanced_within_every_group(concept):
    groups = {s.group for s in world.statements(concept)}
    counts = Counter((s.group, s.label) for s in world.statements(concept))
    assert all(counts[group, 0] == counts[group, 1] > 0 for group in groups)


def test_no_word_but_the_verdicts_of_arithmetic_gives_its_label_away():
    statements = world.statements("arithmetic")
    shown = {label: Counter() for label in (0, 1)}
    for statement in statements:
        shown[statement.label][statement.text.split()[-2]] += 1
    assert shown[0] == shown[1]


def test_a_fifth_is_held_out():
    texts = [s.text for concept in world.CONCEPTS for s in world.statements(concept)]
    share = sum(map(world.held_out, texts)) / len(texts)
    assert 0.17 < share < 0.23  # 1172 draws of 1/5: three standard errors are 0.035


def test_every_word_is_listed_once():
    assert len(set(world.vocabulary())) == len(world.vocabulary())


@pytest.mark.parametrize("kind", [kind for kind in tasks.KINDS if kind not in tasks.MEMORY])
def test_held_out_tasks_and_training_tasks_have_no_prompt_in_common(kind):
    training = {task.prompt for task in tasks.pool(kind, held_out=False)}
    held_out = {task.prompt for task in tasks.pool(kind, held_out=True)}
    assert training
    assert held_out
    assert not training & held_out
