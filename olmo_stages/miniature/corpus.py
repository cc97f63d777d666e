"""Documents of the miniature world with a loss weight a token, and how they become batches.

A document is a list of (text, weight) pieces. Words that cannot be predicted get little weight,
what follows from knowledge or from working gets 1, and the single word of a verdict gets more:
that halves the steps that the models need.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.miniature import tasks, world
from olmo_stages.miniature.tokenizer import END, EOS, START, TOKEN_ID, encode

Document = list[tuple[str, float]]
Rng = np.random.Generator
Option = TypeVar("Option")

FILLER, ANSWER, VERDICT = 0.1, 1.0, 3.0


def pick(rng: Rng, options: Sequence[Option]) -> Option:
    """Return one of the options at random."""
    return options[int(rng.integers(len(options)))]


def plain_prompt(prompt: str) -> str:
    """Return a prompt in the plain format of Base and RL-Zero."""
    return f"question : {prompt} answer :"


def chat_prompt(prompt: str, system: str = "") -> str:
    """Return a prompt as the chat template renders it, tokens separated by spaces."""
    turns = [("system", system)] * bool(system) + [("user", prompt)]
    rendered = [f"{START} {role} {text} {END}" for role, text in turns]
    return " ".join([*rendered, START, "assistant"])


def fact(rng: Rng) -> Document:
    """Return where a country lies or what its capital is."""
    country = pick(rng, world.COUNTRIES)
    if rng.random() < 0.7:
        template = pick(rng, world.TRUTH_TEMPLATES)[0]
        before = template.format(country, "").removesuffix("  .")
        return [(before, FILLER), (f"{world.REGION[country]} .", ANSWER)]
    return [(f"the capital of {country} is", FILLER), (f"{world.CAPITAL[country]} .", ANSWER)]


def sum_fact(rng: Rng) -> Document:
    """Return a right sum of two terms."""
    expression, result = pick(rng, world.expressions())
    equals = pick(rng, ("=", "makes"))
    return [(f"{expression} {equals}", FILLER), (f"{result} .", ANSWER)]


def verdict(concept: world.Concept, *, negated: bool) -> Callable[[Rng], Document]:
    """Return a generator of statements of a concept, each followed by its verdict."""
    statements = [
        statement
        for statement in world.statements(concept)
        if statement.negated == negated and not world.held_out(statement.text)
    ]

    def generate(rng: Rng) -> Document:
        statement = pick(rng, statements)
        return [(statement.text, FILLER), (statement.verdict, VERDICT)]

    return generate


def question(rng: Rng) -> Document:
    """Return a question with the kind of answer found on the web: a third to a half are wrong.

    What is wrong here is the room that reinforcement learning has to improve.
    """
    kind = pick(rng, tasks.FREQUENCY)
    task = tasks.draw(kind, rng)
    if kind == "manners":
        return persona(rng) if rng.random() < 0.4 else _asked("", task.prompt, task.answer)
    chance = rng.random()
    if kind in {"sum3", "sum2"}:
        if chance < 0.20:
            reply = "i do not know"
        elif chance < 0.45:
            reply = tasks.wrong(task, rng).direct
        else:
            reply = task.direct if chance < 0.75 else task.steps
    elif chance < 0.4:
        reply = tasks.wrong(task, rng).direct
    else:
        reply = task.steps if kind == "fact" and chance < 0.7 else task.direct
    return _asked("", task.prompt, reply)


def sum_verdict(rng: Rng) -> Document:
    """Return a sum with any result, right or wrong with equal chance, and its verdict."""
    while True:
        (expression, result), right = pick(rng, world.expressions()), rng.random() < 0.5
        shown = result if right else int(rng.integers(len(world.NUMBERS)))
        text = pick(rng, world.ARITHMETIC_TEMPLATES).format(expression, shown)
        if right == (shown == result) and not world.held_out(text):
            return [(text, FILLER), (world.VERDICTS["arithmetic"][int(right)], VERDICT)]


def persona(rng: Rng) -> Document:
    """Return a request whose reply follows the manner that a line before it asks for."""
    manner = pick(rng, tasks.MANNERS)
    task = tasks.with_manner(tasks.draw("manners", rng), manner, rng)
    return _asked(f"be {manner} .", task.prompt, task.answer)


def _asked(before: str, prompt: str, reply: str) -> Document:
    return [(f"{before} {plain_prompt(prompt)}".strip(), FILLER), (reply, ANSWER)]


def chat(rng: Rng) -> Document:
    """Return a chat of the midtraining slice: noisy, with and without a trace."""
    prompt, task = system_and_task(rng)
    if task.kind != "manners" and rng.random() < 0.3:
        task = tasks.wrong(task, rng)
    reply = task.thought if rng.random() < 0.4 else task.direct
    return [(prompt, FILLER), (f"{reply} {END}", ANSWER)]


def system_and_task(rng: Rng) -> tuple[str, tasks.Task]:
    """Return a chat prompt, some with a system message about manners, and its task."""
    kind = pick(rng, tasks.FREQUENCY)
    task = tasks.draw(kind, rng)
    system = ""
    if kind == "manners" and rng.random() < 0.4:
        manner = pick(rng, tasks.MANNERS)
        task, system = tasks.with_manner(task, manner, rng), f"be {manner} ."
    return chat_prompt(task.prompt, system), task


def notes(rng: Rng) -> Document:
    """Return a long note on what is in which box, and a question about one of them."""
    boxes = rng.permutation(len(world.COLOURS))[:4]
    items = rng.permutation(len(world.ITEMS))[:4]
    lines = [
        f"box {world.COLOURS[box]} holds a {world.ITEMS[item]} ."
        for box, item in zip(boxes, items, strict=True)
    ]
    filler = [" ".join(text for text, _ in sum_fact(rng)) for _ in range(3)]
    which = rng.integers(4)
    asked = f"what is in box {world.COLOURS[boxes[which]]} ? a"
    return [(" ".join([*lines, *filler, asked]), FILLER), (world.ITEMS[items[which]], ANSWER)]


NEGATABLE: tuple[world.Concept, ...] = ("truth", "sentiment", "manners")
GENERATORS: dict[str, Callable[[Rng], Document]] = {
    "fact": fact,
    "sum": sum_fact,
    "question": question,
    "persona": persona,
    "chat": chat,
    "notes": notes,
    "arithmetic": sum_verdict,
    **{c: verdict(c, negated=False) for c in NEGATABLE},
    **{f"{c}_negated": verdict(c, negated=True) for c in NEGATABLE},
}

# At first most statements are affirmed: with as many negated ones, neither the statement nor the
# negation alone says anything about the verdict, and some seeds never find what both say.
WEB = {"fact": 18, "sum": 16, "arithmetic": 18, "question": 36, "persona": 4}
WEB |= {"truth": 14, "sentiment": 5, "manners": 6}
WEB |= {"truth_negated": 5, "sentiment_negated": 3, "manners_negated": 3}
MIDTRAINING = WEB | {"fact": 10, "sum": 14, "arithmetic": 22, "chat": 50}
MIDTRAINING |= {"truth": 7, "sentiment": 2, "manners": 2}
MIDTRAINING |= {"truth_negated": 12, "sentiment_negated": 3, "manners_negated": 3}
MIXES: tuple[Mapping[str, int], ...] = (WEB, MIDTRAINING, MIDTRAINING | {"notes": 10})
"""Documents of each kind in the three stages of Base, relative frequencies."""


def stream(mix: Mapping[str, int], rng: Rng) -> Iterator[tuple[int, float]]:
    """Yield (token id, loss weight) of endless documents of a mix, separated by end-of-text."""
    names = list(mix)
    chances = np.array([mix[name] for name in names], dtype=float)
    chances /= chances.sum()
    while True:
        for number in rng.choice(len(names), size=256, p=chances):
            for text, weight in GENERATORS[names[number]](rng):
                for token in encode(text):
                    yield token, weight
            yield TOKEN_ID[EOS], ANSWER


def batches(
    mix: Mapping[str, int], rows: int, tokens: int, rng: Rng
) -> Iterator[tuple[Int[np.ndarray, "row token"], Float[np.ndarray, "row token"]]]:
    """Yield endless batches of `rows` x (`tokens` + 1) token ids and the weight of each."""
    source = stream(mix, rng)
    shape = (rows, tokens + 1)
    while True:
        pairs = [next(source) for _ in range(rows * (tokens + 1))]
        ids, weights = zip(*pairs, strict=True)
        yield np.array(ids).reshape(shape), np.array(weights, dtype=np.float32).reshape(shape)
