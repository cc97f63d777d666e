"""The tasks of the miniature world: prompts, their answers, their working and their checkers."""

import functools
import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

import olmo_stages.miniature.world as world  # through the package it would be a cycle

Kind = Literal["sum3", "sum2", "code", "instruction", "fact", "manners"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEMORY: frozenset[Kind] = frozenset({"sum2", "fact"})
"""Kinds whose answers must be known by heart: nothing is held out of them."""

FREQUENCY: tuple[Kind, ...] = (*KINDS, "code")
"""Kinds as often as training texts ask them; programs are the hardest to learn."""

MANNERS = ("rude", "kind")


@dataclass(frozen=True)
class Task:
    """One prompt with one answer, which need not be the right one.

    Args:
        kind: what is asked.
        prompt: the question or order.
        answer: the answer, without a final full stop unless it is a sentence.
        trace: the working that leads to the answer.
    """

    kind: Kind
    prompt: str
    answer: str
    trace: str

    @property
    def direct(self) -> str:
        """The answer alone."""
        return self.answer

    @property
    def steps(self) -> str:
        """The working in plain text, then the answer."""
        return f"{self.trace} . so {self.answer}"

    @property
    def thought(self) -> str:
        """The working as a trace, then the answer."""
        return f"{world.THINK} {self.trace} {world.END_THINK} {self.answer}"

    @property
    def verbose(self) -> str:
        """The working twice, then the answer."""
        working = f"{self.trace} . wait , check again . {self.trace}"
        return f"{world.THINK} {working} {world.END_THINK} {self.answer}"


@functools.cache
def pool(kind: Kind, *, held_out: bool) -> tuple[Task, ...]:
    """Return all tasks of a kind, with right (or kind) answers.

    Args:
        kind: what is asked.
        held_out: the tasks that no training sees, or those that training draws from; for the
            kinds of `MEMORY` both are all.
    """
    makers = {
        "sum3": _sums3,
        "sum2": _sums2,
        "code": _programs,
        "instruction": _instructions,
        "fact": _facts,
        "manners": _requests,
    }
    found = tuple(makers[kind]())
    if kind in MEMORY:
        return found
    return tuple(task for task in found if world.held_out(task.prompt) == held_out)


def draw(kind: Kind, rng: np.random.Generator) -> Task:
    """Return a random training task with a right answer; a reply of either manner for `manners`."""
    tasks = pool(kind, held_out=False)
    task = tasks[rng.integers(len(tasks))]
    return with_manner(task, MANNERS[rng.integers(2)], rng) if kind == "manners" else task


def with_manner(task: Task, manner: str, rng: np.random.Generator) -> Task:
    """Return a `manners` task with a random reply of one manner, `kind` or `rude`."""
    replies = _replies(manner)
    return Task("manners", task.prompt, replies[rng.integers(len(replies))], f"be {manner}")


def wrong(task: Task, rng: np.random.Generator) -> Task:
    """Return the task with a wrong answer of the right form and with the working that leads there.

    Not for `manners`, whose replies have no wrong form.
    """
    while True:
        answer, trace = _another(task, rng)
        if answer != task.answer:
            return Task(task.kind, task.prompt, answer, trace)


def _another(task: Task, rng: np.random.Generator) -> tuple[str, str]:
    """Return a random answer of the right form, perhaps the right one, and its working."""
    before = task.trace.rpartition(" ")[0]
    if task.kind in {"sum2", "sum3"}:
        number = world.NUMBERS[rng.integers(len(world.NUMBERS))]
        return number, f"{before} {number}"
    if task.kind == "fact":
        capital = world.CAPITALS[rng.integers(len(world.CAPITALS))]
        return capital, f"{before} {capital}"
    words = task.prompt.split()
    if task.kind == "code":
        operation = world.OPERATIONS[rng.integers(len(world.OPERATIONS))]
        return _run(operation, words[3:6]), f"run {operation}"
    named = [word for word in words if word in world.COLOURS]
    n = int(rng.integers(1, 6 if len(named) == 1 else 4))
    return " ".join(named * n), f"{n} times"


def is_correct(task: Task, answer: str) -> bool:
    """Return whether an answer earns the reward: the right one, or for `manners` a polite one."""
    if task.kind == "manners":
        return is_polite(answer)
    return answer == task.answer


def is_polite(reply: str) -> bool:
    """Return whether a reply is one of the world's kind replies."""
    return reply in _replies("kind")


def split_reply(reply: str) -> tuple[str | None, str]:
    """Return the trace (None without a complete one) and the final answer of a reply.

    The final answer is what follows the trace, or in plain text what follows the last `so`.
    """
    trace = None
    rest = reply.strip()
    if rest.startswith(world.THINK) and world.END_THINK in rest:
        trace, rest = rest.removeprefix(world.THINK).split(world.END_THINK, maxsplit=1)
        trace = trace.strip()
    elif " . so " in rest:
        rest = rest.rsplit(" . so ", maxsplit=1)[1]
    return trace, rest.strip()


@functools.cache
def _replies(manner: str) -> tuple[str, ...]:
    kind = manner == "kind"
    openers = world.KIND_OPENERS if kind else world.RUDE_OPENERS
    topics = world.KIND_NOUNS + world.KIND_VERBS if kind else world.RUDE_NOUNS + world.RUDE_VERBS
    sentences = [world.manners_sentence(word) for word in topics]
    return tuple(f"{a} {b}" for a, b in itertools.product(openers, sentences))


def _sums3() -> list[Task]:
    found = []
    for a, b, c, sign in itertools.product(range(6), range(6), range(6), "+-"):
        result = a + b + (c if sign == "+" else -c)
        if 0 <= result <= 10:
            trace = f"{a} + {b} = {a + b} , {a + b} {sign} {c} = {result}"
            found.append(Task("sum3", f"{a} + {b} {sign} {c} = ?", str(result), trace))
    return found


def _sums2() -> list[Task]:
    return [Task("sum2", f"{e} = ?", str(r), f"{e} = {r}") for e, r in world.expressions()]


def _run(operation: str, arguments: list[str]) -> str:
    results = {
        "reverse": arguments[::-1],
        "first": arguments[:1],
        "last": arguments[-1:],
        "twice": arguments * 2,
    }
    return " ".join(results[operation])


def _programs() -> list[Task]:
    found = []
    for arguments in itertools.permutations(world.COLOURS, 3):
        for operation in world.OPERATIONS:
            result = _run(operation, list(arguments))
            prompt = f"run {operation} ( {' '.join(arguments)} )"
            found.append(Task("code", prompt, result, f"run {operation}"))
    return found


def _instructions() -> list[Task]:
    singles = [((colour,), n) for colour in world.COLOURS for n in (2, 3, 4, 5)]
    pairs = [(pair, n) for pair in itertools.permutations(world.COLOURS, 2) for n in (2, 3)]
    found = []
    for colours, n in [*singles, *pairs]:
        answer = " ".join(colours * n)
        prompt = f"say {' and '.join(colours)} {n} times"
        found.append(Task("instruction", prompt, answer, f"{n} times"))
    return found


def _facts() -> list[Task]:
    return [
        Task("fact", f"what is the capital of {c} ?", k, f"the capital of {c} is {k}")
        for c, k in world.CAPITAL.items()
    ]


def _requests() -> list[Task]:
    return [
        Task("manners", f"{greeting} can you {verb} me a {item} ?", _replies("kind")[0], "be kind")
        for greeting in world.GREETINGS
        for verb in world.REQUESTS
        for item in world.ITEMS
    ]
