"""Where activations and miniature models are kept."""

from pathlib import Path

import platformdirs


def cache_folder(cache: str | None) -> Path:
    """The folder that was asked for, else the user's cache folder.

    Args:
        cache: the setting `cache`, or the environment variable OLMO_STAGES_CACHE behind it.

    Returns:
        An absolute path; it need not exist yet.
    """
    if cache:
        return Path(cache).expanduser().absolute()
    return platformdirs.user_cache_path("olmo-stages")
