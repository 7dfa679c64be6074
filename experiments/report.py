"""`report.html`: one file that shows a run, its pictures, videos and curves inside; nothing is fetched."""

import base64
import html
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import errors, media, workdir
from experiments import plots as plotting

_LARGEST_VIDEO = 8 * 2**20
# Above this many pixels a PNG of a photograph makes the file heavy; a JPEG of quality 90 shows the same.
_LARGEST_PNG_PIXELS = 256 * 256


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image with a caption: an array (see `media`), or the path of a PNG or JPEG file."""

    image: Any
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Video:
    """An MP4 or GIF file with a caption; above 8 MiB it is linked relative to the report, not embedded."""

    path: str | os.PathLike[str]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells; numbers are set to the right and shortened."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what comes under it, in this order: text, pictures, videos, curves, tables.

    Attributes:
        title: the heading.
        text: paragraphs separated by blank lines; plain text, no markup.
        pictures: shown in a grid.
        videos: shown beside each other.
        plots: curves, two in a row where there is room.
        tables: each in full width.
        pixelated: enlarge small pictures with hard pixels instead of smoothly.
    """

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    videos: Sequence[Video] = ()
    plots: Sequence[plotting.Plot] = ()
    tables: Sequence[Table] = ()
    pixelated: bool = False


def write_report(
    path: str | os.PathLike[str], *, title: str, summary: Mapping[str, Any], sections: Sequence[Section]
) -> None:
    """Writes a run's report as one HTML file, atomically.

    Args:
        path: the file, usually `workdir / "report.html"`.
        title: the page's heading.
        summary: the few numbers and words that matter, shown large.
        sections: the rest.

    Raises:
        InputError: a picture or video file cannot be read, or the report not be written.
        NoRoomError: the disk is full.
    """
    path = pathlib.Path(path)
    body = [f"<h1>{html.escape(title)}</h1>", _summary(summary), *(_section(section, path) for section in sections)]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Belt and braces: even a caption that escaped its quoting could load nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "img-src data: 'self' file:; media-src data: 'self' file:\">"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
    )
    page = head + "\n".join(body) + "</main></body></html>\n"
    workdir.write_bytes_atomic(path, page.encode("utf-8", errors="replace"))


def _summary(summary: Mapping[str, Any]) -> str:
    tiles = []
    for name, value in summary.items():
        words = ' class="words"' if len(_cell(value)) > 12 else ""
        tiles.append(f"<div{words}><dt>{html.escape(str(name).replace('_', ' '))}</dt><dd>{_cell(value)}</dd></div>")
    return f'<dl class="summary">{"".join(tiles)}</dl>' if tiles else ""


def _section(section: Section, path: pathlib.Path) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.text.split("\n\n") if text.strip()]
    if section.pictures:
        pixelated = " pixelated" if section.pixelated else ""
        parts.append(f'<div class="pictures{pixelated}">{"".join(_picture(p) for p in section.pictures)}</div>')
    if section.videos:
        parts.append(f'<div class="pictures videos">{"".join(_video(v, path) for v in section.videos)}</div>')
    if section.plots:
        parts.append(f'<div class="plots">{"".join(_plot(p) for p in section.plots)}</div>')
    parts += [_table(table) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _picture(picture: Picture) -> str:
    if isinstance(picture.image, (str, os.PathLike)):
        data, kind = _read(picture.image), _picture_kind(picture.image)
        width = media.read_png(picture.image).shape[1]
    else:
        pixels = media.as_uint8(picture.image)
        is_large = pixels.shape[0] * pixels.shape[1] > _LARGEST_PNG_PIXELS and pixels.shape[-1] == 3
        kind = "jpeg" if is_large and not _is_flat(pixels) else "png"
        data, width = media.encode(pixels, format=kind.upper()), pixels.shape[1]
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    # Small pictures may grow to be seen; wide ones (strips, contact sheets) take the whole row.
    wide = ' class="wide"' if width > 700 else ""
    alt = html.escape(picture.caption or "picture", quote=True)
    return f'<figure{wide}><img src="{source}" alt="{alt}">{_caption(picture.caption)}</figure>'


def _is_flat(pixels: np.ndarray) -> bool:
    """Whether a picture is drawn rather than photographed: few colours, which PNG keeps sharp and small."""
    sample = pixels[:: max(pixels.shape[0] // 128, 1), :: max(pixels.shape[1] // 128, 1)].reshape(-1, pixels.shape[-1])
    return len(np.unique(sample, axis=0)) < 256


def _video(video: Video, report: pathlib.Path) -> str:
    file = pathlib.Path(video.path)
    kinds = {".mp4": "video/mp4", ".gif": "image/gif"}
    kind = kinds.get(file.suffix.lower())
    if kind is None:
        raise errors.InputError(f"a report shows .mp4 and .gif files, got {file}")
    data = _read(file)
    if len(data) < _LARGEST_VIDEO:
        source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    else:
        source = html.escape(os.path.relpath(file, report.parent), quote=True)
    if kind == "image/gif":
        element = f'<img src="{source}" alt="{html.escape(video.caption or "animation", quote=True)}">'
    else:
        element = f'<video src="{source}" autoplay loop muted playsinline controls></video>'
    return f"<figure>{element}{_caption(video.caption)}</figure>"


def _plot(plot: plotting.Plot) -> str:
    title = html.escape(plot.title)
    return f'<figure class="plot"><h3>{title}</h3>{plotting.legend(plot)}{plotting.svg(plot)}</figure>'


def _table(table: Table) -> str:
    numeric = [bool(column) and all(map(_is_number, column)) for column in zip(*table.rows, strict=False)]
    numeric += [False] * (len(table.header) - len(numeric))
    right = [" class=n" if is_numeric else "" for is_numeric in numeric]
    head = "".join(f"<th{r}>{html.escape(name)}</th>" for name, r in zip(table.header, right, strict=False))
    rows = []
    for row in table.rows:
        cells = "".join(f"<td{' class=n' if _is_number(cell) else ''}>{_cell(cell)}</td>" for cell in row)
        rows.append(f"<tr>{cells}</tr>")
    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    content = f"{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{content}</table></div>'


def _caption(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>" if text else ""


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return html.escape(plotting.number(value) if _is_number(value) else str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise errors.InputError(f"cannot read {path} for the report: {error.strerror}") from error


def _picture_kind(path: str | os.PathLike[str]) -> str:
    kinds = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp"}
    kind = kinds.get(pathlib.Path(path).suffix.lower())
    if kind is None:
        raise errors.InputError(f"a report shows {', '.join(kinds)} pictures, got {path}")
    return kind


_STYLE = """
:root{color-scheme:light dark;--paper:#fcfcfb;--card:#fff;--ink:#1d2126;--soft:#5f6871;--line:#e2e4e8;--grid:#eceef1;
--c0:#2a6fbb;--c1:#d9622b;--c2:#2c8c57;--c3:#9150b5;--c4:#b58a00;--c5:#0d8f99}
@media(prefers-color-scheme:dark){:root{--paper:#15181c;--card:#1c2025;--ink:#e6e8ea;--soft:#9aa3ad;--line:#31373e;
--grid:#2a2f35;--c0:#6aa9f0;--c1:#f28b5b;--c2:#5fc48c;--c3:#c48ce0;--c4:#e0b94a;--c5:#4cc5cf}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 20px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:19px;margin:44px 0 12px;padding-bottom:6px;border-bottom:1px solid var(--line)}
h3{font-size:14px;margin:0 0 4px;font-weight:600}
p{max-width:75ch;margin:0 0 12px;white-space:pre-line}
.summary{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px;margin:0}
.summary div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px;min-width:0}
.summary .words{grid-column:span 2}
.words dd{font-size:15px}
dt{color:var(--soft);font-size:12.5px}
dd{margin:2px 0 0;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums;overflow-wrap:anywhere;
line-height:1.25}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(260px,1fr));gap:16px;align-items:start;
margin-top:12px}
.videos{grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr))}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:16px;margin-top:12px}
figure{margin:0;min-width:0}
figure.wide{grid-column:1/-1}
img,video{display:block;width:100%;height:auto;border-radius:6px;background:var(--grid)}
.wide img{width:auto;max-width:100%}
.pixelated img{image-rendering:pixelated}
figcaption{color:var(--soft);font-size:13px;margin-top:6px}
.plot{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px 6px;max-width:760px}
svg{display:block;width:100%;height:auto}
svg .axis{fill:var(--soft);font-size:12px;font-family:inherit;font-variant-numeric:tabular-nums}
svg .grid{stroke:var(--grid);stroke-width:1}
svg .frame{stroke:var(--soft);stroke-width:1;fill:none}
svg path{fill:none;stroke-linejoin:round;stroke-linecap:round}
svg .curve{stroke-width:2}
svg .raw{stroke-width:1;opacity:.28}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;color:var(--soft);min-height:21px}
.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
.scroll{overflow-x:auto;margin-top:14px}
table{border-collapse:collapse;font-size:14px;min-width:50%}
caption{text-align:left;color:var(--soft);font-size:13px;padding-bottom:6px}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
th{color:var(--soft);font-weight:500;white-space:nowrap}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}
@media print{body{background:#fff}.plot,figure{break-inside:avoid}}
"""
