"""A real browser without a network, which notes whatever goes wrong in a page."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from filelock import FileLock

NAMES = ("chromium", "chromium-browser", "google-chrome")
ABSENT = "no browser: install Debian's chromium, or name one in OLMO_STAGES_CHROMIUM"


def executable():
    """The browser to test with; None where there is none."""
    named = os.environ.get("OLMO_STAGES_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser():
    """Started once a worker. Without one its tests are skipped, or fail where one must be there."""
    found = executable()
    if found is None and os.environ.get("OLMO_STAGES_REQUIRE_BROWSER") == "1":
        pytest.fail(ABSENT)
    if found is None:
        pytest.skip(ABSENT)
    from playwright.sync_api import sync_playwright

    # No name can be looked up: what asks for an address all the same meets a closed port.
    arguments = ["--no-sandbox", "--host-resolver-rules=MAP * 127.0.0.1:9"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=arguments)
        yield started
        started.close()


@dataclass
class Watch:
    """What a page asked for and what it complained about."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def over(self, context, page) -> None:
        def request(route):
            self.requests.append(route.request.url)
            route.continue_()

        def console(message):
            if message.type in {"error", "warning"}:
                self.complaints.append(f"console {message.type}: {message.text}")

        context.route("**/*", request)
        page.on("console", console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))


@pytest.fixture(scope="session")
def opened(browser):
    """Opens a file in a window of its own, as a context manager: page and what was noticed."""

    @contextmanager
    def opened(path, **settings):
        given = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        context = browser.new_context(**{**given, **settings})
        context.set_default_timeout(10_000)
        page, watch = context.new_page(), Watch()
        watch.over(context, page)
        page.goto(path.as_uri())
        yield page, watch
        context.close()

    return opened


@pytest.fixture(scope="session")
def written(outputs, tmp_path_factory):
    """The page of the sweep, made once, whichever worker comes first."""
    from olmo_stages.report import page, study

    made = outputs.parent.parent / "written"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            copied = tmp_path_factory.mktemp("report") / "outputs"
            shutil.copytree(outputs, copied)
            built = study.build([copied / "sweeps" / "post_training"])
            page.write(built, copied.parent / "index.html")
            copied.parent.rename(made)
    return made / "index.html"


@pytest.fixture(scope="session")
def frame(written):
    """All measurements of the sweep."""
    from olmo_stages import results

    return results.load(written.parent / "outputs" / "sweeps" / "post_training")


@pytest.fixture(scope="session")
def by_hand(tmp_path_factory):
    """The page of the small study that is made by hand."""
    from olmo_stages.report import page
    from tests import documents

    path = tmp_path_factory.mktemp("by_hand") / "index.html"
    page.write(documents.study(), path)
    return path


@pytest.fixture(scope="session")
def window(opened, written):
    """The page of the sweep, opened once, since drawing all figures takes seconds."""
    with opened(written) as (page, watch):
        page.wait_for_selector('body[data-figures="drawn"]', state="attached", timeout=60_000)
        yield page, watch


@pytest.fixture
def shown(window, written):
    """The page of the sweep; a test leaves it as it was, and nothing may be complained of."""
    page, watch = window
    yield page
    page.evaluate("document.getElementById('data').close()")  # a failed test may leave it open
    assert watch.complaints == []
    assert watch.requests == [written.as_uri()]
