"""The page in a real browser: readable on a phone, quiet, and content with itself."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from edgekron.report import LayerFindings, render

from .test_page import findings

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROGRAM = next((path for name in BROWSERS if (path := shutil.which(name))), None)

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason=f"no browser is installed ({', '.join(BROWSERS)})"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]

LONG = "features.denseblock3.denselayer24.conv2_of_a_network_with_long_names"

#: Widths in CSS pixels: a phone, a tablet, a screen.
WIDTHS = (375, 768, 1280)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as library:
        program = library.chromium.launch(executable_path=PROGRAM)
        yield program
        program.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    layers = tuple(
        LayerFindings(
            name,
            "64x64x3x3",
            "tensor-train [1, 12, 9, 1], rank 12",
            "fitted to outputs",
            (9, 5),
            (9, 5),
            0.1,
            (1e-5, 2e-5),
        )
        for name in ("conv1", LONG)
    )
    command = "edgekron report a/very/long/folder/" + 20 * "name" + " --bench --seconds 2 --threads 1"
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(findings(layers=layers, command=command)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser, file, request):
    """The page at a width, and everything it said and asked for."""
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda wanted: asked.append(wanted.url))
    page.goto(file.as_uri())
    yield page, said, asked
    page.close()


@pytest.mark.parametrize("opened", WIDTHS, indirect=True)
def test_nothing_is_said_asked_for_or_wider_than_the_window(opened, file):
    page, said, asked = opened
    assert said == []
    assert asked == [file.as_uri()]
    wider = page.evaluate("""() => [...document.querySelectorAll("body, body *")]
        .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map(e => e.tagName + " " + e.textContent.slice(0, 40))""")
    assert wider == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.parametrize("opened", [375], indirect=True)
def test_a_phone_shows_every_word_large_enough(opened):
    page, _, _ = opened
    # Words in pictures shrink with them: the height of a line is about 1.2 times the size of its letters.
    heights = page.evaluate("""() => [...document.querySelectorAll("svg text")]
        .map(e => e.getBoundingClientRect()).filter(r => r.width > r.height).map(r => r.height)""")
    assert len(heights) > 50
    assert min(heights) >= 9
    # No table scrolls sideways; the cells stand below each other with the names of their columns.
    assert page.evaluate("""() => [...document.querySelectorAll(".wide")].every(e => e.scrollWidth <= e.clientWidth)""")
    label = page.evaluate(
        """() => getComputedStyle(document.querySelector("td[data-label=MACs]"), "::before").content"""
    )
    assert label == '"MACs"'


@pytest.mark.parametrize("opened", [1280], indirect=True)
def test_pictures_have_a_shape_and_stand_side_by_side(opened):
    page, _, _ = opened
    boxes = page.evaluate("""() => [...document.querySelectorAll("figure svg")].map(e => e.getBoundingClientRect())
        .map(r => [r.left, r.width, r.height])""")
    assert len(boxes) == 7
    assert all(width > 300 and height > 80 for _, width, height in boxes)
    assert len({round(left) for left, _, _ in boxes}) == 2
