import numpy as np
import pytest

from olmo_stages.miniature import tasks


@pytest.mark.parametrize(
    ("kind", "prompt", "answer"),
    [
        ("sum3", "3 + 4 - 2 = ?", "5"),
        ("sum2", "4 - 3 = ?", "1"),
        ("code", "run reverse ( red blue green )", "green blue red"),
        ("code", "run twice ( red blue green )", "red blue green red blue green"),
        ("instruction", "say red 3 times", "red red red"),
        ("instruction", "say red and blue 2 times", "red blue red blue"),
        ("fact", "what is the capital of calder ?", "corin"),
    ],
)
def test_answers_are_right(kind, prompt, answer):
    both = tasks.pool(kind, held_out=False) + tasks.pool(kind, held_out=True)
    (task,) = {task for task in both if task.prompt == prompt}
    assert task.answer == answer
    assert tasks.is_correct(task, answer)


@pytest.mark.parametrize("kind", [kind for kind in tasks.KINDS if kind != "manners"])
def test_wrong_answers_are_not_correct(kind):
    rng = np.random.default_rng(0)
    for _ in range(50):
        task = tasks.draw(kind, rng)
        assert tasks.is_correct(task, task.answer)
        assert not tasks.is_correct(task, tasks.wrong(task, rng).answer)


@pytest.mark.parametrize(("manner", "polite"), [("kind", True), ("rude", False)])
def test_only_kind_replies_are_polite(manner, polite):
    rng = np.random.default_rng(0)
    task = tasks.draw("manners", rng)
    for _ in range(30):
        reply = tasks.with_manner(task, manner, rng).answer
        assert tasks.is_correct(task, reply) == polite


@pytest.mark.parametrize("form", ["direct", "steps", "thought", "verbose"])
def test_every_form_of_reply_ends_in_its_answer(form):
    rng = np.random.default_rng(0)
    for kind in tasks.KINDS:
        task = tasks.draw(kind, rng)
        trace, answer = tasks.split_reply(getattr(task, form))
        assert answer == task.answer
        assert (trace is not None) == (form in {"thought", "verbose"})


def test_an_unfinished_trace_is_no_trace():
    assert tasks.split_reply("<think> 3 + 4 = 7") == (None, "<think> 3 + 4 = 7")
