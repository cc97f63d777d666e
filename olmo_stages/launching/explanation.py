"""What went wrong, in one line that names the offending value and what to write instead."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from olmo_stages.atomic import REFUSALS, disk_trouble
from olmo_stages.errors import ConfigError, OlmoStagesError

KNOWN = (OlmoStagesError, HydraException, OmegaConfBaseException, OSError)
"""Errors that one line explains; of all others a traceback is shown, too."""

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "Sequence[int]": "a list of whole numbers, e.g. [3,7]",
    "Sequence[str]": "a list of texts, e.g. [a,b]",
    "Sequence[float]": "a list of numbers, e.g. [0.1,1]",
    "None": "null",
}


def explain(error: BaseException) -> str:
    """One line that names the offending value and what to write instead."""
    chain = _chain(error)
    ours = [cause for cause in chain if isinstance(cause, OlmoStagesError)]
    if ours:
        return str(ours[-1])
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={wrong} does not exist; choose from {', '.join(error.options)}" + _hint(
            wrong, error.options
        )
    texts = "\n".join(map(str, chain))
    return (
        _unparsed(chain)
        or _unknown_key(chain[-1])
        or _not_told(texts)
        or _bad_argument(texts)
        or _unusable(chain)
        or one_line(chain[-1])
    )


def is_request(error: BaseException) -> bool:
    """Whether the command line is at fault, rather than the world."""
    hydras = (HydraException, OmegaConfBaseException)
    causes = [c for c in _chain(error) if isinstance(c, OlmoStagesError)]
    return isinstance(causes[-1], ConfigError) if causes else isinstance(error, hydras)


def one_line(error: BaseException) -> str:
    """An error that nothing is known of: its class and its text."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _unparsed(chain: Sequence[BaseException]) -> str | None:
    """What is wrong with a word that is neither a flag nor `key=value`."""
    words = [error.override for error in chain if isinstance(error, OverrideParseException)]
    if words and "=" not in words[0]:
        return f"{words[0]}: write key=value, e.g. model=think_sft"
    if words and str(chain[-1]) in {"", "None"}:
        return (
            f"{words[0]}: cannot be read; close brackets, and quote what has a = of its own, e.g. "
            """'key=[first, "name=value"]'"""
        )
    return None


def _unusable(chain: Sequence[BaseException]) -> str | None:
    """What an unusable folder or a full disk says."""
    # A missing file is for reading; what is missing for writing is made. What cannot be made often
    # follows on what was missing.
    refused = (it for it in chain if isinstance(it, OSError) and it.errno in REFUSALS)
    error = next(refused, chain[-1])
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return None
    if not error.filename and error.errno not in REFUSALS:
        return None
    return disk_trouble(Path(error.filename or "a file"), error)


def _unknown_key(error: BaseException) -> str | None:
    """What OmegaConf says of a key that a config does not have."""
    unknown = re.search(r"Key '([^']+)' is not in struct", str(error))
    if unknown is None:
        return None
    keys = [str(key) for key in getattr(error, "parent_node", None) or ()]
    keys = [key for key in keys if not key.startswith("_") and key != "hydra"]
    full = re.search(r"full_key: (\S+)", str(error))
    name = full[1] if full else unknown[1]
    return f"{name}: no such option; there are {', '.join(keys)}" + _hint(unknown[1], keys)


def _not_told(texts: str) -> str | None:
    """What a study says that refers to something the chosen stage or size does not have."""
    missing = re.search(r"Interpolation key '([^']+)' not found", texts)
    if missing is None:
        return None
    return f"there is no {missing[1]}; choose a stage and size for which conf/model has it"


def _bad_argument(texts: str) -> str | None:
    """What a dataclass, or the type hook, says of an argument; Hydra adds where it stands."""
    key = re.search(r"full_key: ([\w.]+)", texts)
    where = f"{key[1]}." if key else ""
    if mistyped := re.search(
        r"parameter '(\w+)'\.\s*Actual value: (.*)\s*Expected type: (.*?)\.?\n", texts + "\n"
    ):
        option, value, wanted = mistyped.groups()
        wanted = re.sub(r"<class '(.*?)'>|collections\.abc\.", r"\1", wanted)
        return f"{where}{option}={value} is not {_in_words(wanted)}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", texts):
        return f"{where}{unknown[1]}: no such option"
    if missing := re.search(r"missing (?:a required|\d+ required).*?argument:? (.*)", texts):
        return f"{where}{missing[1]} is missing"
    return None


def _in_words(kind: str) -> str:
    """A Python type as what may be written on the command line."""
    kinds = [it.strip() for it in kind.split("|")]
    if not set(kinds) <= set(_KINDS):
        return f"of type {kind}"
    return ", or ".join(_KINDS[it] for it in kinds)


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _hint(wrong: str, options: Sequence[str]) -> str:
    near = get_close_matches(wrong, options, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
