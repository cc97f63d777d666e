"""The jobs of sweeps, read back from their files: which are done, which belong together.

Numbers are read at once, because a damaged file makes a job undone; tensors only when jobs are put
together anew, since those of a sweep may be gigabytes.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo_stages.command import changes_job
from olmo_stages.data.responses import OWN
from olmo_stages.errors import StoreError
from olmo_stages.lineage import lineage_order
from olmo_stages.records import MEASUREMENTS, Status, is_finished, mark_digest, read_mark
from olmo_stages.records import canonical_json as canonical
from olmo_stages.types import Measurement

if TYPE_CHECKING:
    import pandas as pd

_DONE = frozenset({"ok", "cached"})
# What may differ between the stages of a group. Released stages differ in their chat templates,
# which are part of the tokenizer's files, and early checkpoints in their context, without any
# prompt being another one: prompts are made by this project's own formats.
_OF_A_STAGE = frozenset({"weights", "random_init", "tokenizer", "max_length"})


@dataclass(frozen=True, eq=False)
class Done:
    """A finished job.

    Args:
        folder: where its result is.
        mark: what `records.read_mark` says.
        provenance: its record.
        numbers: its measurements as a parquet file.
    """

    folder: Path
    mark: Mapping[str, Any]
    provenance: Mapping[str, Any]
    numbers: bytes = field(repr=False)

    @classmethod
    def of(cls, folder: Path) -> "Done":
        """Read a folder, every file that is read checked against its digest.

        Raises:
            StoreError: it holds no finished result, a damaged one, or the record of another
                version.
        """
        mark = read_mark(folder)
        if not is_finished(folder):
            raise StoreError(f"{folder} is damaged; run its job again with force=true")
        try:
            record = json.loads(_content(folder, mark, "provenance.json"))
            job = cls(folder, mark, record, _content(folder, mark, MEASUREMENTS))
            _ = job.key(), job.models(), job.summary()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(f"{folder} is the record of another version") from error
        return job

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """Its measurements."""
        import pandas as pd

        return pd.read_parquet(io.BytesIO(self.numbers))

    @cached_property
    def rows(self) -> tuple[Measurement, ...]:
        """Its measurements."""
        import pyarrow.parquet as pq

        found = pq.read_table(io.BytesIO(self.numbers)).to_pylist()
        return tuple(Measurement(**row) for row in found)

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

    def figure(self, name: str) -> str:
        """One of its figures as JSON text.

        Raises:
            StoreError: its file is damaged.
        """
        return _content(self.folder, self.mark, self.mark["figures"][name]).decode()

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


@dataclass(frozen=True, eq=False)
class Group:
    """Jobs that are seen together.

    Args:
        key: what they share, as `Done.key` says it.
        jobs: in the order of the lineage.
    """

    key: Mapping[str, Any]
    jobs: tuple[Done, ...]

    @property
    def digest(self) -> str:
        """Identity of what they share."""
        return hashlib.sha256(canonical(dict(self.key)).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Undone:
    """A job without a result.

    Args:
        sweep: folder of its sweep.
        status: how it ended.
        damaged: what is wrong with the result that it left; empty where it left none.
    """

    sweep: Path
    status: Status
    damaged: str = ""


@dataclass(frozen=True, eq=False)
class Pool:
    """The jobs of one sweep or several.

    Args:
        done: finished jobs, each once.
        undone: jobs without a result that no other sweep has either.
    """

    done: tuple[Done, ...]
    undone: tuple[Undone, ...]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Jobs that belong together, by analysis, data and what else tells them apart."""
        by_key: dict[str, list[Done]] = {}
        for job in self.done:
            by_key.setdefault(canonical(job.key()), []).append(job)
        place = lineage_order()
        groups: list[Group] = []
        for members in by_key.values():
            members.sort(key=lambda job: tuple(map(place, job.labels)))
            groups.append(Group(members[0].key(), tuple(members)))
        return tuple(sorted(groups, key=_group_order))


def pool(sweeps: Mapping[Path, Sequence[Status]]) -> Pool:
    """Read the jobs of sweeps back.

    A job counts once, whichever sweeps it is in; one that failed in a sweep and is done in another
    is done.

    Args:
        sweeps: jobs by folder of the sweep, as `records.read_statuses` gives them.
    """
    done: dict[str, Done] = {}
    left: list[Undone] = []
    settings: dict[frozenset[str], list[Status]] = {}
    for sweep, statuses in sweeps.items():
        for status in statuses:
            if status.state not in _DONE or status.folder is None:
                left.append(Undone(sweep, status))
                continue
            folder = _place(sweep, Path(status.folder))
            try:
                job = Done.of(folder)
            except StoreError as error:
                left.append(Undone(sweep, status, damaged=str(error)))
                continue
            done.setdefault(job.digest, job)
            settings.setdefault(_settings(status), []).append(status)
    undone = [it for it in left if not _is_done(it.status, settings)]
    return Pool(tuple(done.values()), tuple(undone))


def _is_done(status: Status, done: Mapping[frozenset[str], Sequence[Status]]) -> bool:
    """Whether a job of the same settings is done, e.g. in another sweep.

    A job that failed early tells nothing but its settings; what it does tell must agree.
    """
    own = _settings(status)
    return bool(own) and any(
        all(it.about.get(name) == value for name, value in status.about.items())
        for it in done.get(own, ())
    )


def _settings(status: Status) -> frozenset[str]:
    return frozenset(it for it in status.overrides if changes_job(it))


def _place(sweep: Path, folder: Path) -> Path:
    """Where a job's result is: as recorded, or beside a sweep that was moved or is seen from afar.

    Recorded paths are relative to where the sweep was launched. A sweep is in OUTPUTS/sweeps, a job
    in OUTPUTS/ANALYSIS/STAGE/DATA.
    """
    beside = sweep.resolve().parent.parent.joinpath(*folder.parts[-3:])
    return beside if not is_finished(folder) and is_finished(beside) else folder


def _group_order(group: Group) -> tuple[str, str, str, str]:
    key = group.key
    return key["analysis"], key["data"], key["size"], canonical(dict(key))


def _content(folder: Path, mark: Mapping[str, Any], name: str) -> bytes:
    """A file of a result.

    Raises:
        StoreError: it is not what was written.
    """
    damaged = f"{folder / name} is damaged; run its job again with force=true"
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise StoreError(damaged) from error
    if hashlib.sha256(content).hexdigest() != mark["files"][name]["sha256"]:
        raise StoreError(damaged)
    return content
