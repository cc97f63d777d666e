"""Which forward passes give what is needed: one of a stage and a data set, wherever it can be."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from olmo_stages.activations.identity import PassIdentity
from olmo_stages.activations.request import Work, ask, check_capture
from olmo_stages.models.captures import Capture
from olmo_stages.types import Stage, Wanted


@dataclass(frozen=True)
class Need:
    """What one forward pass of a job must give, where the store does not have it.

    Args:
        work: of the stage.
        captures: sites and positions.
        layers: those that are going to be read.
        captured: those that a pass would keep.
    """

    work: Work
    captures: tuple[Capture, ...]
    layers: tuple[int, ...]
    captured: tuple[int, ...]

    def missing(self, has: "Has") -> tuple[Capture, ...]:
        """The captures that one forward pass over `captured` has to give; none = no pass.

        Args:
            has: what is there already, e.g. `Store.find`; anything that is true means yes.
        """
        return tuple(it for it in self.captures if not has(self.work.identity, (it,), self.layers))


@dataclass(frozen=True)
class Pass:
    """A forward pass.

    Args:
        work: of the stage.
        captures: sites and positions that are asked for.
        layers: block indices that are asked for; -1 = embeddings.
    """

    work: Work
    captures: tuple[Capture, ...]
    layers: tuple[int, ...]


Has = Callable[[PassIdentity, Sequence[Capture], Sequence[int]], object]
"""Whether captures and layers of a pass are there; anything that is true means yes."""


def need(work: Work, wanted: Wanted) -> Need:
    """What is wanted of a stage, checked.

    Raises:
        ConfigError: no such site, position or layer.
    """
    captures = tuple(sorted({check_capture(*pair) for pair in wanted.captures}))
    asked = ask(work, captures[0], wanted.layers)
    return Need(work, captures, asked.layers, asked.captured)


def passes(
    needs: Sequence[Need],
    has: Has,
    keep: Callable[[Pass], Pass],
    others: Callable[[Collection[Stage]], Iterable[Need]] = lambda _: (),
) -> Iterator[Pass]:
    """The forward passes that give all that is needed, none for what an earlier one gives.

    Args:
        needs: in their order.
        has: what is there already, without these passes.
        keep: adds to a pass what else it is to keep.
        others: what others are going to need of stages that lack something, who come later; asked
            for at the first pass. A pass gives them what they need of it.

    Yields:
        For each pass what is asked of it; what it keeps is as `keep` says.
    """
    made: list[Pass] = []
    later: list[Need] | None = None

    def given(identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]) -> object:
        earlier = any(
            it.work.identity == identity
            and set(captures) <= set(it.captures)
            and set(layers) <= set(it.layers)
            for it in made
        )
        return earlier or has(identity, captures, layers)

    for number, it in enumerate(needs):
        if not (missing := it.missing(given)):
            continue
        if later is None:
            later = list(others({it.work.stage for it in needs if it.missing(given)}))
        found = Pass(it.work, missing, it.captured)
        for other in (*needs[number + 1 :], *later):
            if other.work.identity == it.work.identity:
                found = _with(found, replace(other, captures=other.missing(given)))
        made.append(keep(found))
        yield found


def _with(first: Pass, other: Need) -> Pass:
    """The same pass also for what another needs; not where rows for each token would multiply."""
    if not other.captures:
        return first
    captures = tuple(sorted({*first.captures, *other.captures}))
    layers = tuple(sorted({*first.layers, *other.captured}))
    for asked, own in ((first.captures, first.layers), (other.captures, other.captured)):
        if any(it.position == "tokens" for it in asked) and set(own) != set(layers):
            return first
    return replace(first, captures=captures, layers=layers)
