"""The page says what it was given, holds together as HTML, needs nothing from elsewhere, and trusts no name."""

from html.parser import HTMLParser

import pytest

from edgekron.report import Findings, LayerFindings, Measured, RuntimeFindings, render

VOID = {"meta", "br", "img", "hr", "link", "input"}
HOSTILE = '<script>alert("$x_1$ & y")</script>'


class Document(HTMLParser):
    """Checks that elements nest, and collects what matters."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "xlink:href", "src", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def measured(name, size, macs, top1, median):
    latency = {"median": median, "p5": 0.9 * median, "p95": 1.4 * median}
    memory = {"file": size, "runtime": 54_300_000, "loaded": 61_200_000, "peak": 63_400_000, "steady": 62_700_000}
    spread = tuple(median * (0.9 + 0.002 * i + 0.5 * (i > 97)) for i in range(101))
    return Measured(name, size, macs, 3.2e-7, top1, latency, memory, 0.321, spread)


def findings(**changes):
    runtimes = tuple(
        RuntimeFindings(
            key,
            title,
            measured(f"dense.{key}", 2_225_279, 77_719_808, 94.31, 0.000843),
            measured(f"compressed.{key}", 561_847, 19_081_472, 93.64, 0.000317),
            {"value": 2.66, "low": 2.58, "high": 2.71},
        )
        for key, title in (("onnxruntime", "ONNX Runtime 9.8.7"), ("litert", "LiteRT 6.5.4"))
    )
    layers = (
        LayerFindings(
            "conv1", "64x1x3x3", "stays dense", "too small", (451_584, 451_584), (576, 576), None, (8e-6, 8e-6)
        ),
        LayerFindings(
            "conv2",
            "64x64x3x3",
            "kronecker, rank 12",
            "fitted",
            (28_901_376, 6_021_120),
            (36_864, 7_680),
            0.0437,
            (2e-4, 7e-5),
        ),
    )
    facts = {
        "model": "sixconv",
        "about": "fitted to 2,048 images",
        "date": "2031-02-03",
        "command": "edgekron demo",
        "runtimes": runtimes,
        "layers": layers,
        "environment": {"processor": "A processor", "memory": 25_000_000_000, "governor": {"0": "performance"}},
        "versions": {"edgekron": "0.1.0"},
        "data": "fashion-mnist:test",
        "images": 10_000,
        "other_seconds": (1.4e-5, 1.6e-5),
        "checks": (("dense.onnx is exact", True),),
    }
    return Findings(**(facts | changes))


def text_of(page):
    return " ".join(" ".join(Document(page).text).split())


SHOWN = """
4.07x; 3.96x; 2.66x; (2.58 to 2.71); 77.7; 19.1; 2,225.3; 561.8; 0.843; 0.317; 94.31; 93.64; 0.67 points;
54.3; 61.2; 63.4; 62.7; 321; 3.2e-07; 4.37 %; 28,901,376; 7,680; ONNX Runtime 9.8.7; LiteRT 6.5.4;
kronecker, rank 12; A processor; 25.0 GB; 10,000 images
"""


@pytest.fixture(scope="module")
def page():
    return render(findings())


def test_page_shows_every_number(page):
    text = text_of(page)
    assert [number.strip() for number in SHOWN.split(";") if number.strip() not in text] == []


def test_page_is_well_formed_and_self_contained(page):
    document = Document(page)
    assert document.open == []
    assert len(document.ids) == len(set(document.ids))
    assert document.links
    assert all(link.startswith("#") and link[1:] in document.ids for link in document.links)
    assert "script" not in document.tags
    assert "link" not in document.tags
    assert "://" not in page
    assert "@import" not in page
    assert "url(http" not in page
    assert document.tags.count("svg") == 7


def test_names_are_escaped():
    layer = LayerFindings(HOSTILE, "1x1", HOSTILE, HOSTILE, (2, 1), (2, 1), 0.5, (1e-6, 1e-6))
    page = render(findings(layers=(layer,), model=HOSTILE, command=HOSTILE, notes=(HOSTILE,)))
    assert "script" not in Document(page).tags
    # Title, heading, command, note and three cells; a picture's axis has room for the end of a name.
    assert text_of(page).count(HOSTILE) == 7
    assert text_of(page).count(HOSTILE[-24:]) == 10


def test_what_was_not_measured_is_left_out():
    bare = tuple(
        RuntimeFindings(key, key, Measured("a", 200, 100), Measured("b", 100, 50)) for key in ("onnxruntime", "litert")
    )
    layers = (LayerFindings("conv", "1x1", "stays dense", "too small", (9, 9), (1, 1)),)
    page = render(findings(runtimes=bare, layers=layers, data=None, images=0, other_seconds=None))
    assert Document(page).tags.count("svg") == 1
    assert "Latency, ms" not in page
    assert "Top-1, %" not in page
    assert "2.00x fewer" in page


def test_a_check_that_failed_is_seen():
    page = text_of(render(findings(checks=(("dense.onnx is exact", False),))))
    assert "dense.onnx is exact: NOT HELD" in page
    assert findings(checks=(("a", True), ("b", False))).held is False


def test_json_has_each_runtime_under_its_key():
    data = findings().to_json()
    for key in ("onnxruntime", "litert"):
        assert data[key]["mac_ratio"] == pytest.approx(77_719_808 / 19_081_472)
        assert data[key]["file_ratio"] == pytest.approx(2_225_279 / 561_847)
        assert data[key]["latency_ratio"] == {"value": 2.66, "low": 2.58, "high": 2.71}
        assert (data[key]["top1_dense"], data[key]["top1_compressed"]) == (94.31, 93.64)
