import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from experiments import errors, media, plots, report

PHOTO = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
FLAT = np.zeros((300, 300, 3), np.uint8)
SMALL = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


class Page(html.parser.HTMLParser):
    """Collects elements, sources and text, and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.words, self.tags, self._open = [], [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "data", "srcset", "action")]
        if tag not in ("meta", "img", "br", "link"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def write(tmp_path, *sections, **summary):
    report.write_report(tmp_path / "report.html", title="fit <fox>", summary=summary, sections=sections)
    text = (tmp_path / "report.html").read_text()
    return text, Page(text)


def test_nothing_is_fetched_and_everything_is_there(tmp_path):
    video = media.write_video(tmp_path / "v", [SMALL, SMALL[::-1]], 5)
    curve = plots.Plot(title="loss", series=[plots.Series(name="loss", x=[0, 1, 2], y=[3.0, 2.0, 1.0])])
    text, page = write(
        tmp_path,
        report.Section(title="Views", text="One.\n\nTwo.", pictures=[report.Picture(image=PHOTO, caption="view 1")]),
        report.Section(title="More", videos=[report.Video(path=video, caption="turn")], plots=[curve]),
        report.Section(title="T", tables=[report.Table(header=["view", "psnr"], rows=[["0042", 21.0], ["7", None]])]),
        psnr=21.3456,
        route="splat",
    )
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|url\(|@import|<script", text)
    assert {"svg", "video", "img", "table"} <= set(page.tags)
    words = " ".join(page.words)
    for word in ("fit <fox>", "21.35", "splat", "Views", "One.", "Two.", "view 1", "turn", "loss", "0042"):
        assert word in words


def decode(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_small_and_drawn_pictures_stay_exact_and_photographs_are_compressed(tmp_path):
    pictures = [report.Picture(image=image) for image in (SMALL, FLAT, PHOTO)]
    _, page = write(tmp_path, report.Section(title="P", pictures=pictures))
    assert [source.partition(";")[0] for source in page.sources] == [
        "data:image/png",
        "data:image/png",
        "data:image/jpeg",
    ]
    np.testing.assert_array_equal(decode(page.sources[0]), SMALL)
    np.testing.assert_array_equal(decode(page.sources[1]), FLAT)
    assert decode(page.sources[2]).shape == PHOTO.shape


def test_a_picture_file_goes_in_byte_by_byte(tmp_path):
    media.write_png(tmp_path / "a.png", SMALL)
    _, page = write(tmp_path, report.Section(title="P", pictures=[report.Picture(image=tmp_path / "a.png")]))
    assert base64.b64decode(page.sources[0].partition(",")[2]) == (tmp_path / "a.png").read_bytes()


def test_markup_in_the_data_stays_text(tmp_path):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    curve = plots.Plot(title=evil, series=[plots.Series(name=evil, x=[0], y=[1.0])], x_label=evil)
    section = report.Section(
        title=evil,
        text=evil,
        pictures=[report.Picture(image=SMALL, caption=evil)],
        plots=[curve],
        tables=[report.Table(header=[evil], rows=[[evil]], caption=evil)],
    )
    text, page = write(tmp_path, section, **{evil: evil})
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert all(source.startswith("data:") for source in page.sources)


def test_large_videos_are_linked_beside_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_LARGEST_VIDEO", 10)
    (tmp_path / "results").mkdir()
    video = media.write_video(tmp_path / "results" / "v", [SMALL], 5)
    _, page = write(tmp_path, report.Section(title="V", videos=[report.Video(path=video)]))
    assert page.sources == [f"results/{video.name}"]


@pytest.mark.parametrize(
    "section",
    [
        report.Section(title="a", videos=[report.Video(path="absent.mp4")]),
        report.Section(title="a", videos=[report.Video(path="x.avi")]),
        report.Section(title="a", pictures=[report.Picture(image="absent.png")]),
        report.Section(title="a", pictures=[report.Picture(image=__file__)]),
    ],
)
def test_missing_files_are_named_and_no_report_is_left(tmp_path, section):
    with pytest.raises(errors.InputError, match="absent|x.avi|report_test.py"):
        write(tmp_path, section)
    assert list(tmp_path.iterdir()) == []
