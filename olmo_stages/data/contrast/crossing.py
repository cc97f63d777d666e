"""The plan behind the contrast sets: a crossing in which no single word tells the label.

Each pair of opposite statements is given affirmed and negated. Every word then stands as often
under label 1 as under label 0, within each group and so within any choice of groups, and a model
that only counts words is left with nothing, whatever groups it is trained on.

Measured on all eight sets with logistic regression, 5 folds by group, as AUROC: words 0.50; words
and pairs of neighbouring words 0.50, but 0.53 on manners; number of words, or of characters,
0.50 to 0.52. The tests hold the sets to 0.50 +- 0.02, 0.60 and 0.50 +- 0.05.

Every example has a counterpart (`Example.pair`) of the other label, of the same group, polarity,
opening and template, that differs from it in one stretch of words: the opposite adjectives, the
wrong class, the wrong result.
"""

from dataclasses import dataclass

from olmo_stages.data.dataset import content_id
from olmo_stages.types import Example


@dataclass(frozen=True)
class Crossing:
    """Two opposite statements, each affirmed and negated.

    Args:
        group: what they are about; kept together in a split.
        present: the statement that has the trait, affirmed and negated.
        absent: its opposite, affirmed and negated.
    """

    group: str
    present: tuple[str, str]
    absent: tuple[str, str]

    def examples(self, trait: str) -> list[Example]:
        """Return the four labelled examples; negating a statement turns its label over.

        The counterpart of a statement is its opposite of the same polarity: affirmed with
        affirmed, negated with negated.
        """
        pairs = [f"{have} | {lack}" for have, lack in zip(self.present, self.absent, strict=True)]
        return [
            statement(text, group=self.group, label=label, trait=trait, polarity=kind, pair=pair)
            for texts, labels in ((self.present, (1, 0)), (self.absent, (0, 1)))
            for text, label, kind, pair in zip(
                texts, labels, ("affirmative", "negated"), pairs, strict=True
            )
        ]


def statement(
    text: str, *, group: str, label: int, trait: str, polarity: str, pair: str
) -> Example:
    """Return a labelled text whose id is made from the text."""
    example_id = content_id(["text", text])
    return Example(example_id, group, label, text=text, trait=trait, polarity=polarity, pair=pair)
