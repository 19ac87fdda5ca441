"""A real headless Chromium; tests skip where it, or the library that drives it, is not there."""

import shutil

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a file and collects whatever is logged, fails, or is asked of a network."""
    pages = []

    def call(path, **options):
        page = chromium.new_page(**options)
        pages.append(page)
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("dialog", lambda dialog: (page.problems.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: page.problems.append(request.url))
        page.goto(path.as_uri())
        first = page.problems.pop(0)
        assert first == path.as_uri()
        # Pictures within the page are requests to Chromium too; they stay in the page.
        page.outside = lambda: [one for one in page.problems if not one.startswith("data:")]
        return page

    yield call
    for page in pages:
        page.close()
