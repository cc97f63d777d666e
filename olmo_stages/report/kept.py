"""Results read back from their folders without their tensors, which may be gigabytes."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo_stages.data.responses import OWN
from olmo_stages.errors import StoreError
from olmo_stages.headlines import restored
from olmo_stages.records import (
    MEASUREMENTS,
    PROVENANCE,
    is_finished,
    mark_digest,
    read_file,
    read_mark,
)
from olmo_stages.records import canonical_json as canonical
from olmo_stages.types import Headline, Measurement

if TYPE_CHECKING:
    import pandas as pd

# What may differ between the stages of a group. Released stages differ in their chat templates,
# which are part of the tokenizer's files, and early checkpoints in their context, without any
# prompt being another one: prompts are made by this project's own formats.
_OF_A_STAGE = frozenset({"weights", "random_init", "tokenizer", "max_length"})


@dataclass(frozen=True, eq=False)
class Kept:
    """A result in a folder.

    Args:
        folder: where it is.
        mark: what `records.read_mark` says.
        provenance: its record.
        numbers: its measurements as a parquet file.
    """

    folder: Path
    mark: Mapping[str, Any]
    provenance: Mapping[str, Any]
    numbers: bytes = field(repr=False)

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """Its measurements."""
        import pandas as pd

        return pd.read_parquet(io.BytesIO(self.numbers))

    @cached_property
    def rows(self) -> tuple[Measurement, ...]:
        """Its measurements."""
        import pyarrow.parquet as pq

        made: list[Measurement] = []
        # No function of ours is called by row, nor is the type of every field checked, which the
        # file has anyway: that would take most of a report's time.
        for row in pq.read_table(io.BytesIO(self.numbers)).to_pylist():
            measured = object.__new__(Measurement)
            vars(measured).update(row)
            made.append(measured)
        return tuple(made)

    @cached_property
    def headline(self) -> Headline:
        """Its headline, in the order of the columns."""
        return restored(self.mark["headline"])

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader must know."""
        return self.mark["warnings"]

    @property
    def figures(self) -> Sequence[str]:
        """Names of its figures."""
        return list(self.mark["figures"])

    def figure(self, name: str) -> str:
        """One of its figures as JSON text.

        Raises:
            StoreError: its file is damaged.
        """
        return read_file(self.folder, self.mark, self.mark["figures"][name]).decode()


class Done(Kept):
    """A finished job."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What was run, as `Job.describe` says it."""
        return self.provenance["job"]

    @property
    def stage(self) -> str:
        """Label of its stage."""
        return self.about["stage"]["label"]

    @property
    def reference(self) -> str:
        """Label of its reference; empty where there is none."""
        return "" if self.about["reference"] is None else self.about["reference"]["label"]

    @property
    def labels(self) -> tuple[str, str]:
        """Labels of the stage and of the reference."""
        return self.stage, self.reference

    @property
    def digest(self) -> str:
        """Identity of the job."""
        return self.about["digest"]

    @property
    def result(self) -> str:
        """Identity of its numbers."""
        return mark_digest(self.mark)

    @property
    def model(self) -> Mapping[str, Any]:
        """The configuration of its stage; empty where the record has none."""
        given = self.provenance.get("config", {}).get("model")
        return given if isinstance(given, Mapping) else {}

    @property
    def target(self) -> str:
        """Dotted name of the analysis's class, as the configuration gave it."""
        analysis = self.provenance["config"].get("analysis")
        target = analysis.get("_target_") if isinstance(analysis, Mapping) else None
        return target or f"olmo_stages.analyses.{self.about['analysis']}."

    def key(self) -> dict[str, Any]:
        """What jobs must share to be put together."""
        identity = self.about["identity"]
        passes = identity["activations"]
        sides = [it for it in (self.about["stage"], self.about["reference"]) if it is not None]
        sizes = [it["size"] for it in sides if it["size"] != "custom"]
        return {
            "analysis": self.about["analysis"],
            "target": self.target,
            "data": self.about["data"],
            "data_digest": self.provenance["data_digest"],
            "size": sizes[0] if sizes else "custom",
            "options": identity["options"],
            "version": identity["version"],
            "seed": identity["seed"],
            "pass": {name: it for name, it in passes.items() if name not in self._differing},
            "responses": identity.get("responses"),
        }

    def models(self) -> dict[str, str]:
        """Identity of the model behind each label."""
        identity = self.about["identity"]
        sides = {self.stage: (self.about["stage"], identity["activations"])}
        if self.reference:
            sides[self.reference] = (self.about["reference"], identity["reference"])
        read = {"data"} if self._reads_own else set()
        return {
            label: canonical([about["size"], {k: it for k, it in passes.items() if k not in read}])
            for label, (about, passes) in sides.items()
        }

    def summary(self) -> dict[str, str]:
        """What an assembled result's record says of the job."""
        return {
            "digest": self.digest,
            "stage": self.stage,
            "reference": self.reference,
            "result": self.result,
        }

    @property
    def _reads_own(self) -> bool:
        """Whether each stage reads what it wrote itself, and so other data than the next one."""
        responses = self.about["identity"].get("responses")
        return responses is not None and responses["mode"] == OWN

    @property
    def _differing(self) -> frozenset[str]:
        return _OF_A_STAGE | {"data"} if self._reads_own else _OF_A_STAGE


def read_kept(folder: Path) -> Kept:
    """Read a folder, every file that is read checked against its digest.

    Raises:
        StoreError: it holds no finished result, or a damaged one.
    """
    return Kept(folder, *_read(folder))


def read_done(folder: Path) -> Done:
    """Read the folder of a job, every file that is read checked against its digest.

    Raises:
        StoreError: it holds no finished result, a damaged one, or the record of another version.
    """
    try:
        job = Done(folder, *_read(folder))
        _ = job.key(), job.models(), job.summary()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{folder} is the record of another version") from error
    return job


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Mark, provenance and measurements of a result.

    Raises:
        StoreError: it holds no finished result, or a damaged one.
    """
    mark = read_mark(folder)
    if not is_finished(folder):
        raise StoreError(f"{folder} is damaged; run its job again")
    record = json.loads(read_file(folder, mark, PROVENANCE))
    return mark, record, read_file(folder, mark, MEASUREMENTS)
