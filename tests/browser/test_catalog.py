"""The catalog in Chromium: sorting, filtering, width of a phone, dark paper."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from distillhub.packaging.catalog import gather
from distillhub.packaging.catalog_pages import write_site
from tests.unit.packaging import sample

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)"),
]


def chromium(*words: str) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    done = subprocess.run(
        [str(CHROMIUM), *flags, "--virtual-time-budget=3000", *words],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("browser")
    sample.build(root / "sets" / "soft")
    sample.build(root / "sets" / "hard", soft=False)
    write_site(
        gather([root / "sets" / "soft", root / "sets" / "hard"]), root / "site", title="Sets"
    )
    return root / "site"


def lines(dom: str) -> list[str]:
    """Links of the table's lines, in the order that is seen."""
    return re.findall(r'<th scope="row"[^>]*><a href="sets/([^"/]+)', dom.split("</table>")[0])


@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_the_table_is_sorted_as_the_address_says(site, direction):
    dom = chromium("--dump-dom", f"{(site / 'index.html').as_uri()}#sort=bytes,{direction}")

    sizes = [int(n) for n in re.findall(r'data-sort="(\d+)" class="number">[\d.]+ k?B', dom)]
    assert sizes == sorted(sizes, reverse=direction == "descending")
    assert re.search(rf'data-key="bytes"[^>]*aria-sort="{direction}"', dom)
    assert f"Sorted by Bytes with labels, {direction}." in dom


def driven(site: Path, script: str) -> str:
    """The page after a script of the test has used it; the page's own rules forbid inline ones."""
    text = (site / "index.html").read_text(encoding="utf-8")
    page = site / "driven.html"
    (site / "drive.js").write_text(
        f'window.addEventListener("load", () => {{ {script} }});', encoding="utf-8"
    )
    page.write_text(text.replace("</head>", '<script src="drive.js"></script></head>'), "utf-8")
    try:
        return chromium("--dump-dom", page.as_uri())
    finally:
        page.unlink()
        (site / "drive.js").unlink()


def test_a_button_sorts_and_sorts_the_other_way_when_pressed_again(site):
    press = 'document.querySelector("[data-key=bytes] button").click();'

    once, twice = driven(site, press), driven(site, press * 2)

    assert re.search(r'data-key="bytes"[^>]*aria-sort="descending"', once)
    assert re.search(r'data-key="bytes"[^>]*aria-sort="ascending"', twice)
    assert lines(once) == lines(twice)[::-1]


def test_every_control_is_reached_by_the_keyboard_and_keeps_its_place_after_sorting(site):
    script = """
      const button = document.querySelector("[data-key=bytes] button");
      button.focus(); button.click();
      document.title = String(document.activeElement === button) +
        [...document.querySelectorAll("a, button, input, summary")].every((e) => e.tabIndex === 0);
    """

    assert "<title>truetrue</title>" in driven(site, script)


def test_the_filter_hides_the_other_lines_and_says_how_many_are_left(site):
    script = """
      const field = document.getElementById("filter");
      field.value = "nothing like this"; field.dispatchEvent(new Event("input"));
    """

    dom = driven(site, script)

    assert "0 of 2 sets." in dom


@pytest.mark.parametrize("page", ["index.html", "set"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(site, tmp_path, page, width):
    place = site / page if page.endswith("html") else next((site / "sets").glob("*/index.html"))
    measured = tmp_path / "measure.html"
    measured.write_text(
        f'<iframe id="f" src="{place.as_uri()}" style="width:{width}px;height:900px;border:0">'
        '</iframe><script>window.addEventListener("load", () => { const d = '
        'document.getElementById("f").contentDocument.documentElement;'
        "document.title = `${d.scrollWidth} of ${d.clientWidth}`; });</script>",
        encoding="utf-8",
    )

    dom = chromium("--allow-file-access-from-files", "--dump-dom", measured.as_uri())

    assert f"<title>{width} of {width}</title>" in dom


@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_of_the_page_shows_it(site, tmp_path, width):
    shot = tmp_path / "shot.png"

    chromium(f"--window-size={width},900", f"--screenshot={shot}", (site / "index.html").as_uri())

    with Image.open(shot) as image:
        assert image.size == (width, 900)
        assert len(image.convert("L").getcolors(1 << 16) or range(300)) > 20


def test_dark_paper_is_dark(site, tmp_path):
    shot = tmp_path / "shot.png"

    chromium("--force-dark-mode", "--blink-settings=preferredColorScheme=0",
             f"--screenshot={shot}", (site / "index.html").as_uri())  # fmt: skip

    with Image.open(shot) as image:
        assert image.convert("RGB").getpixel((2, 2)) == (0x14, 0x17, 0x1A)
