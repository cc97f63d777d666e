"""The data sets of conf/data/*.yaml that are about traits: persona, folder, traits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from olmo_stages.checks import checked
from olmo_stages.data import persona, persona_results, trait_folders
from olmo_stages.data.contrast import persona as built_in
from olmo_stages.data.dataset import Dataset, by_trait
from olmo_stages.data.formats import as_format
from olmo_stages.data.mapping import limited
from olmo_stages.data.persona import GROUPS, Openings, Persona
from olmo_stages.data.persona_results import Keep
from olmo_stages.data.responses import Generation, responding
from olmo_stages.data.sets import ENGLISH, BuiltIn, check_vocabulary, is_small
from olmo_stages.errors import ConfigError
from olmo_stages.types import Example, check_choice

VOCABULARIES: Mapping[bool, Callable[[], Persona]] = {
    False: built_in.english,
    True: built_in.miniature,
}


@checked
@dataclass(frozen=True)
class FromPersona:
    """Persona data of one's own, or the built-in trait `rude`.

    Args:
        path: a JSON file of persona_vectors, a folder of them, or a list; None = built in.
        name: name for tables and folders; None = taken from the path.
        vocabulary: of the built-in trait: `english`, `miniature`, or `auto`.
        group: what stays together in a split, `question` or `instruction`.
        assistants: names in `You are an evil assistant.` before the instructions, e.g.
            `['{trait}', 'helpful']`; None = no such sentence, or that of the responses.
        responses: result files of persona_vectors, of `pos` and of `neg`, or their folder; None =
            prompts without answers.
        keep: which pairs of such responses are kept.
        limit: how many examples of a trait at most; whole groups are chosen by a hash.
        limit_seed: another seed makes another choice.
        format: how examples become prompts; in the fixed template, which every stage can be given,
            unless told otherwise.
        mix_formats: allow prompts that differ between the stages of a comparison.
        respond: who completes the chats: `own`, `STAGE[@REVISION]`, or None = nobody.
        generation: how responses are written.

    Raises:
        ConfigError: an option that does not exist, or options that contradict one another.
    """

    path: str | Sequence[str] | None = None
    name: str | None = None
    vocabulary: str = "auto"
    group: str = "question"
    assistants: Sequence[str] | None = None
    responses: str | Sequence[str] | None = None
    keep: Keep = field(default_factory=Keep)
    limit: int | None = None
    limit_seed: int = 0
    format: str = "chat_fixed"
    mix_formats: bool = False
    respond: str | None = None
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        check_vocabulary(self.vocabulary)
        check_choice("data.group", self.group, GROUPS)
        as_format(self.format)
        Openings(self.assistants)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit={self.limit} leaves no examples; give 1 or more")
        if self.responses is not None and self.path is None:
            raise ConfigError(
                "data.responses needs the file that was asked with: data.path=TRAIT.json"
            )
        if self.responses is not None and self.respond is not None:
            raise ConfigError("give data.responses (from files) or data.respond, not both")

    def load(self, *, miniature: bool) -> Dataset:
        """Read the traits; `miniature` says whether the model knows only the small world.

        Raises:
            ConfigError: files that do not fit the traits.
            DataError: a file cannot be used as it is, or no answers are left.
        """
        traits = self._traits(miniature=miniature)
        found: list[Example] = []
        notes: list[str] = []
        for trait in traits:
            examples, said = self._examples(trait, len(traits))
            found += limited(examples, self.limit, self.limit_seed)
            notes += [*said, persona.note(trait, self.group)]
        return Dataset(
            self._name(miniature=miniature),
            named_by_trait(found),
            as_format(self.format),
            mix_formats=self.mix_formats,
            notes=tuple(notes),
            respond=responding(self.respond, self.generation),
        )

    def _traits(self, *, miniature: bool) -> tuple[Persona, ...]:
        if self.path is None:
            return (VOCABULARIES[is_small(self.vocabulary, miniature=miniature)](),)
        return persona.read(self.path)

    def _examples(
        self, trait: Persona, n_traits: int
    ) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        openings = Openings(self.assistants)
        if self.responses is None:
            return persona.prompts(trait, self.group, openings), ()
        files = persona_results.files_of(trait.trait, self.responses, n_traits)
        examples, counts = persona_results.answered(
            trait, files, self.keep, by=self.group, openings=openings
        )
        return examples, (counts,)

    def _name(self, *, miniature: bool) -> str:
        if self.name:
            return self.name
        if self.path is None:
            small = is_small(self.vocabulary, miniature=miniature)
            return "persona_miniature" if small else "persona"
        paths = [self.path] if isinstance(self.path, str) else self.path
        return "_".join(Path(path).stem for path in paths)


@checked
@dataclass(frozen=True)
class FromFolder:
    """A folder with positive.txt and negative.txt, or a folder of such folders, a trait each.

    Args:
        path: the folder; None is an error only when it is read.
        name: name for tables; None = name of the folder.
        paired: whether the prompts of a line are counterparts; None = if both files hold as many.
        limit: how many examples of a trait at most; whole groups are chosen by a hash.
        limit_seed: another seed makes another choice.
        format: how examples become prompts.
        mix_formats: allow prompts that differ between the stages of a comparison.
        respond: who completes the prompts: `own`, `STAGE[@REVISION]`, or None = nobody.
        generation: how responses are written.

    Raises:
        ConfigError: an unknown format, or a limit that leaves nothing.
    """

    path: str | None = None
    name: str | None = None
    paired: bool | None = None
    limit: int | None = None
    limit_seed: int = 0
    format: str = "auto"
    mix_formats: bool = False
    respond: str | None = None
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        as_format(self.format)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit={self.limit} leaves no examples; give 1 or more")

    def load(self, *, miniature: bool = False) -> Dataset:
        """Read the folder; the data are the same whatever the model.

        Raises:
            ConfigError: no path was given.
            DataError: the folder cannot be used as it is.
        """
        del miniature
        if self.path is None:
            raise ConfigError(
                "data=folder needs a folder with positive.txt and negative.txt: data.path=DIR"
            )
        found: list[Example] = []
        notes: list[str] = []
        for trait in trait_folders.read(self.path):
            examples, said = trait_folders.examples(trait, paired=self.paired)
            found += limited(examples, self.limit, self.limit_seed)
            notes += said
        return Dataset(
            self.name or Path(self.path).expanduser().resolve().name,
            named_by_trait(found),
            as_format(self.format),
            mix_formats=self.mix_formats,
            notes=tuple(notes),
            respond=responding(self.respond, self.generation),
        )


@checked
@dataclass(frozen=True)
class Traits:
    """Several built-in contrast sets in one, for comparing traits within a stage.

    Args:
        sets: names of the sets, e.g. `truth`, `sentiment`, `manners`.
        name: name for tables and folders.
        vocabulary: plain English, the miniature world's words, or whichever suits the model.
        format: how examples become prompts.
        mix_formats: allow prompts that differ between the stages of a comparison.
        respond: who completes the prompts: `own`, `STAGE[@REVISION]`, or None = nobody.
        generation: how responses are written.

    Raises:
        ConfigError: fewer than two sets, an unknown one, or one twice.
    """

    sets: Sequence[str]
    name: str = "traits"
    vocabulary: str = "auto"
    format: str = "auto"
    mix_formats: bool = False
    respond: str | None = None
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        for name in self.sets:
            check_choice("data.sets", name, tuple(ENGLISH))
        if len(self.sets) < 2 or len(set(self.sets)) < len(self.sets):
            raise ConfigError(
                f"data.sets={list(self.sets)} are not two or more different sets; choose from "
                f"{', '.join(ENGLISH)}"
            )
        check_vocabulary(self.vocabulary)
        as_format(self.format)

    def load(self, *, miniature: bool) -> Dataset:
        """Return the examples; `miniature` says whether the model knows only the small world."""
        sets = [BuiltIn(name, self.vocabulary).load(miniature=miniature) for name in self.sets]
        small = is_small(self.vocabulary, miniature=miniature)
        return Dataset(
            f"{self.name}_miniature" if small else self.name,
            named_by_trait([example for part in sets for example in part.examples]),
            as_format(self.format),
            mix_formats=self.mix_formats,
            respond=responding(self.respond, self.generation),
        )


def named_by_trait(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Put the trait before the names of groups and pairs, where there are several traits.

    Groups of different traits then never mix, though both may be called `line 1`.
    """
    if len(by_trait(examples)) < 2:
        return tuple(examples)
    return tuple(
        replace(
            example,
            group=f"{example.trait}/{example.group}",
            pair=f"{example.trait}/{example.pair}" if example.pair else "",
        )
        for example in examples
    )
