"""The catalog: every artifact has a line and a page, sound as HTML, whatever its names are."""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from distillhub.packaging import catalog_cards, catalog_plot
from distillhub.packaging.catalog import gather
from distillhub.packaging.catalog_pages import table, write_site
from distillhub_cli.main import app
from tests.foreign_sets import pictures
from tests.unit.packaging import sample

VOID = {"meta", "link", "img", "input", "br", "hr", "line", "circle", "path"}
HOSTILE = """"><script>alert(1)</script>&lt;'{{7*7}}"""


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.path = path
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[int] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == [], f"{path}: not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"{self.path}: </{tag}> closes nothing"
        assert self.open.pop() == tag, f"{self.path}: </{tag}> closes another one"

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def changed(folder: Path, **dataset) -> Path:
    """Give a set another name or version; its data stay."""
    path = folder / "eval.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["dataset"] |= dataset
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    """Soft, hard, imported, unscored, and two versions of one set."""
    root = tmp_path_factory.mktemp("catalog") / "artifacts"
    root.mkdir()
    sample.build(root / "soft")
    sample.build(root / "hard", soft=False)
    shutil.copytree(root / "soft", root / "soft-2")
    changed(root / "soft-2", version="1.0.1")
    changed(root / "hard", name="hard-only")
    for made in root.glob("*-package"):
        shutil.rmtree(made)
    folder = pictures(root.parent / "set", per_class=2)
    result = CliRunner().invoke(app, ["import", str(folder), "--out", str(root / "imported")])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(scope="module")
def site(artifacts) -> Path:
    out = artifacts.parent / "site"
    write_site(gather([artifacts]), out, title="Sets")
    return out


@pytest.fixture(scope="module")
def pages(site) -> list[Page]:
    return [Page(path) for path in sorted(site.rglob("*.html"))]


def test_every_artifact_has_a_line_and_a_page(site):
    index = Page(site / "index.html")
    links = [a["href"] for a in index.all("a") if str(a["href"]).startswith("sets/")]

    assert len(set(links)) == 4
    assert all((site / link).is_file() for link in links)


def test_headings_go_down_one_level_at_a_time(pages):
    for page in pages:
        assert page.headings[0] == 1, page.path
        assert page.headings.count(1) == 1, page.path
        steps = zip(page.headings, page.headings[1:], strict=False)
        assert all(after - before <= 1 for before, after in steps), page.path


def test_header_cells_say_what_they_are_the_head_of(pages):
    for page in pages:
        assert {attrs.get("scope") for attrs in page.all("th")} <= {"col", "row"}, page.path


def test_every_page_names_its_language_its_title_and_its_width(pages):
    for page in pages:
        assert page.all("html")[0]["lang"] == "en"
        assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
        assert len([1 for tag, _ in page.tags if tag == "title"]) >= 1


def test_every_field_has_a_label_and_every_id_is_there_once(pages):
    for page in pages:
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        labelled = {attrs["for"] for attrs in page.all("label")}
        assert len(ids) == len(set(ids)), page.path
        assert {attrs["id"] for attrs in page.all("input")} == labelled
        for _, attrs in page.tags:
            for name in ("aria-labelledby", "aria-describedby"):
                assert set((attrs.get(name) or "").split()) <= set(ids), page.path


def test_images_have_a_description_and_are_there(pages):
    for page in pages:
        for image in page.all("img"):
            assert image["alt"]
            assert (page.path.parent / str(image["src"])).is_file()


def test_the_first_thing_that_takes_the_focus_skips_to_the_content(pages):
    for page in pages:
        first = page.all("a")[0]
        assert first["class"] == "skip"
        assert any(attrs.get("id") == str(first["href"])[1:] for _, attrs in page.tags)


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for page in pages:
        for tag, attrs in page.tags:
            for name in ("src", "srcset", "data", "action", "poster"):
                assert "//" not in str(attrs.get(name) or ""), page.path
            if tag == "link":
                assert "//" not in str(attrs["href"])
            assert not any(name.startswith("on") or name == "style" for name in attrs)
    for name in ("catalog.css", "catalog.js"):
        text = (site / name).read_text(encoding="utf-8")
        assert "http" not in text
        assert "url(" not in text
        assert "@import" not in text


def test_links_inside_the_site_lead_somewhere(pages):
    for page in pages:
        for attrs in page.all("a"):
            target = unquote(str(attrs["href"]))
            if not target.startswith(("http", "#")):
                assert (page.path.parent / target).is_file(), f"{page.path}: {target}"


def test_the_plot_is_described_in_words_and_as_a_table(site):
    index = Page(site / "index.html")
    drawing = index.all("svg")[0]

    assert drawing["role"] == "img"
    assert len(str(drawing["aria-labelledby"]).split()) == 2
    assert "best for their size: " in index.text
    assert "The numbers of the plot" in index.text


def test_only_one_column_is_announced_as_sorted(site):
    heads = [attrs for attrs in Page(site / "index.html").all("th") if "data-key" in attrs]

    assert [head["data-key"] for head in heads if "aria-sort" in head] == ["source"]
    assert len(Page(site / "index.html").all("button")) == len(heads)


def test_the_same_artifacts_give_the_same_bytes(artifacts, site, tmp_path):
    write_site(gather([artifacts]), tmp_path / "again", title="Sets")

    for path in sorted(p for p in site.rglob("*") if p.is_file()):
        again = tmp_path / "again" / path.relative_to(site)
        assert again.read_bytes() == path.read_bytes(), path


def test_hostile_names_are_text_everywhere(artifacts, tmp_path):
    folder = shutil.copytree(artifacts / "soft", tmp_path / "a")
    path = folder / "eval.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["dataset"]["name"] = content["source"]["id"] = HOSTILE
    content["method"]["name"] = content["card"]["title"] = HOSTILE
    content["dataset"]["version"] = HOSTILE
    for part in content["comparisons"]:
        part["arch"] = HOSTILE
    path.write_text(json.dumps(content), encoding="utf-8")
    card = (
        f"# x\n\n{HOSTILE} <img src=x onerror=alert(1)> [a](javascript:alert(1)) ![b](http://e/x)\n"
    )
    (folder / "README.md").write_text(card, encoding="utf-8")

    write_site(gather([folder]), tmp_path / "site", title=HOSTILE)

    for found in (tmp_path / "site").rglob("*.html"):
        page = Page(found)
        assert len(page.all("script")) == (1 if found.parent == tmp_path / "site" else 0)
        assert HOSTILE in page.text
        assert not any(str(a.get("href")).startswith("javascript") for a in page.all("a"))
        assert all(str(image["src"]).startswith("assets/") for image in page.all("img"))


def test_a_card_keeps_its_tables_warnings_and_outside_links():
    card = "---\na: 1\n---\n\n# T\n\n> [!WARNING]\n> - Careful.\n\n## H\n\n| a |\n|---|\n| 1 |\n\n"
    card += "[x](https://e.org/) [y](eval.json) ![z](no.png)\n"

    html = catalog_cards.to_html(card, frozenset())

    assert "a: 1" not in html
    assert "<h1" not in html
    assert '<th scope="col">a</th>' in html
    assert 'href="https://e.org/" rel="noopener noreferrer"' in html
    assert "eval.json" not in html
    assert "z</p>" in html


def test_warnings_of_a_card_look_like_warnings():
    html = catalog_cards.to_html("# T\n\n> [!WARNING]\n> - Careful.\n", frozenset())

    assert '<blockquote class="alert warning">' in html
    assert "[!WARNING]" not in html


def test_unknown_and_unscored_things_say_so_and_sort_last(artifacts):
    columns, rows = table(gather([artifacts / "imported"]).entries)
    cells = dict(zip([column.key for column in columns], rows[0].cells, strict=True))

    assert cells["source"].text == cells["method"].text == cells["hours"].text == "not known"
    assert cells["protocol"].text == "not scored"
    assert {cells[key].key for key in ("source", "method", "hours", "protocol")} == {""}


def test_an_arm_that_no_set_has_gets_no_column(artifacts):
    columns, _ = table(gather([artifacts / "hard"]).entries)

    assert {"syn_hard", "rnd_hard"} <= {column.key for column in columns}
    assert "syn_soft" not in {column.key for column in columns}


def test_two_versions_of_a_set_are_two_lines_with_pages_of_their_own(artifacts):
    entries = gather([artifacts / "soft", artifacts / "soft-2"]).entries

    assert [entry.report.dataset.version for entry in entries] == ["1.0.0", "1.0.1"]
    assert len({entry.slug for entry in entries}) == 2


def test_a_folder_named_twice_is_listed_once(artifacts):
    assert len(gather([artifacts, artifacts / "soft"]).entries) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("eval.json", b"{", "Invalid JSON"),
        ("eval.json", b"\xff", "cannot be read"),
        ("manifest.json", b"{}", "manifest.json"),
        ("README.md", None, "README.md"),
        ("README.md", b"\xff", "utf-8"),
    ],
)
def test_a_broken_artifact_is_named_and_the_others_are_listed(
    artifacts, tmp_path, name, content, said
):
    shutil.copytree(artifacts / "soft", tmp_path / "good")
    bad = shutil.copytree(artifacts / "hard", tmp_path / "bad")
    (bad / name).unlink()
    if content is not None:
        (bad / name).write_bytes(content)

    found = gather([tmp_path])

    assert [entry.folder.name for entry in found.entries] == ["good"]
    assert said in found.broken[0].what
    assert found.broken[0].where == str(bad)


def test_the_report_of_another_artifact_is_noticed(artifacts, tmp_path):
    folder = shutil.copytree(artifacts / "soft", tmp_path / "a")
    shutil.copy(artifacts / "hard" / "manifest.json", folder)

    assert "speak of two artifacts" in gather([folder]).broken[0].what


def test_a_linked_picture_is_not_followed(artifacts, tmp_path):
    folder = shutil.copytree(artifacts / "soft", tmp_path / "a")
    sheet = folder / "assets" / "contact_sheet.png"
    sheet.unlink()
    sheet.symlink_to(artifacts / "hard" / "assets" / "contact_sheet.png")

    write_site(gather([folder]), tmp_path / "site", title="x")

    assert list((tmp_path / "site").rglob("contact_sheet.png")) == []


def test_the_best_for_their_size_are_those_that_no_other_beats():
    known = [(10, 0.5), (20, 0.5), (30, 0.7)]

    assert [catalog_plot.beaten(*one, known) for one in known] == [False, True, False]


def test_sets_of_different_sources_do_not_stand_in_one_plot(artifacts, tmp_path):
    folder = shutil.copytree(artifacts / "soft", tmp_path / "a")
    path = folder / "eval.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["source"]["id"] = "org/others"
    path.write_text(json.dumps(content), encoding="utf-8")

    plots = catalog_plot.plots(gather([artifacts / "soft", folder]).entries)

    assert [plot.title.partition(": ")[0] for plot in plots] == ["org/others", "someone/animals"]


def test_more_bytes_stand_further_right_and_more_accuracy_higher(artifacts):
    plot = catalog_plot.plots(gather([artifacts]).entries)[0]

    assert plot.x(2000) < plot.x(3000)
    assert plot.y(0.9) < plot.y(0.8)


def test_the_command_lists_what_it_can_and_ends_with_5_where_something_is_broken(
    artifacts, tmp_path
):
    (tmp_path / "empty").mkdir()
    words = ["catalog", str(artifacts), str(tmp_path / "empty"), "--out", str(tmp_path / "site")]

    result = CliRunner().invoke(app, words)

    assert result.exit_code == 5
    assert "holds no artifact" in result.output
    assert "4 sets in" in result.output
    page = Page(tmp_path / "site" / "index.html").text
    assert f"{tmp_path.name}/empty: holds no artifact" in page
    assert str(tmp_path) not in page


def test_a_catalog_is_replaced_and_anything_else_is_left_alone(artifacts, tmp_path):
    out = tmp_path / "site"
    words = ["catalog", str(artifacts / "soft"), "--out", str(out)]

    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, words).exit_code == 0
    (out / ".distillhub-catalog").unlink()
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 2
    assert "something else" in result.output
    assert (out / "index.html").is_file()


def test_two_hundred_artifacts_get_a_page_each(artifacts, tmp_path):
    for number in range(200):
        changed(
            shutil.copytree(artifacts / "soft", tmp_path / "many" / f"{number:03d}"),
            name=f"set-{number}",
        )

    write_site(gather([tmp_path / "many"]), tmp_path / "site", title="Many")

    assert len(list((tmp_path / "site" / "sets").iterdir())) == 200
