"""The report, as text and in a real headless browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest
import yaml

from bench.record.store import Store
from paper_tables.paper.claim_specs import claim_specs
from tests.paper_tables.conftest import declared, write_table_1
from tests.records import rewrite, write_record

PDFTOTEXT = shutil.which("pdftotext")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=3000"),
)
PRINTED_PAGE = 6.75 * 96
# what a reader does: sort Table 1 by its first scores, twice; filter the runs; follow a link to one
VISIT = """
(() => {
const seen = {};
const all = selector => [...document.querySelectorAll(selector)];
const cells = index => all('#table1 details[open] tbody tr').map(r => r.cells[index].textContent);
const heading = document.querySelectorAll('#table1 thead button')[1];
heading.click(); seen.up = cells(1);
heading.click(); seen.down = cells(1);
seen.sorted = heading.parentElement.getAttribute('aria-sort');
const filter = document.getElementById('filter');
filter.value = 'KLD s20'; filter.dispatchEvent(new Event('input'));
seen.shown = all('tr[data-words]').filter(r => !r.hidden).map(r => r.dataset.words);
filter.value = ''; filter.dispatchEvent(new Event('input'));
const run = document.querySelector('details.run');
location.hash = run.id; dispatchEvent(new HashChangeEvent('hashchange'));
seen.opened = run.open;
seen.curves = run.querySelectorAll('polyline').length;
seen.images = [...document.images].map(i => i.complete && i.naturalWidth > 0);
seen.wide = document.documentElement.scrollWidth > innerWidth;
seen.outside = all('[src], link[href]').map(e => e.src || e.href).filter(u => !u.startsWith('data:'));
const effect = document.querySelector('#claim-skew-beats-kl .deciding');
seen.effect = effect.offsetParent ? effect.textContent : '';
seen.wrapping = all('td:not(.word)').filter(c => getComputedStyle(c).whiteSpace !== 'nowrap').length;
const picture = document.querySelector('#pareto-tiny img');
seen.picture = picture.getBoundingClientRect().width;
seen.box = getComputedStyle(picture.parentElement).overflowX;
const closed = () => all('details:not([open])').filter(d => !d.closest('.run')).length;
seen.before = closed();
dispatchEvent(new Event('beforeprint')); seen.printed = closed();
dispatchEvent(new Event('afterprint')); seen.after = closed();
seen.errors = window.errors;
document.body.dataset.seen = JSON.stringify(seen);
})();
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The runs for table 1 but those of srkl, with curves."""
    folder = write_table_1(tmp_path_factory.mktemp("report"))
    for record in list(Store(folder).all()):
        rewrite(folder, record, curve=[{"step": step, "loss": 3 / step, "phi": 0.0} for step in range(1, 101)])
    return folder


@pytest.fixture(scope="module")
def page(out):
    """A report of them, with two figures, of a column's and of a page's width."""
    with pytest.MonkeyPatch.context() as patch:
        command = declared(patch)
        assert command("figures", "6", "pareto", "--out", out).exit_code == 0
        result = command("report", "--out", out)
    assert result.exit_code == 0, result.output
    path = out / "report-tiny.html"
    assert result.stdout.strip() == str(path)
    return path


def test_it_holds_claims_tables_figures_and_every_run_and_needs_nothing_else(page, out):
    html = page.read_text(encoding="utf-8")
    assert html.index('id="claims"') < html.index('id="tables"') < html.index('id="figures"') < html.index('id="runs"')
    for claim in claim_specs():
        assert f'id="claim-{claim.id}"' in html
    for record in Store(out).all():
        assert f'id="{record.run_id}"' in html
    assert 'src="data:image/svg+xml' in html
    assert "Not made: 1, 2, 3, 7, 8" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "arXiv:2402.03898" in html


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(page, command, out):
    again = out / "again.html"
    assert command("report", "--out", out, "--to", again).exit_code == 0
    assert again.read_bytes() == page.read_bytes()


def test_every_run_shows_its_whole_configuration_as_yaml(page, out):
    shown = html.unescape(page.read_text(encoding="utf-8"))
    for record in Store(out).all():
        assert yaml.safe_dump(record.config.canonical(), sort_keys=False, allow_unicode=True) in shown


def test_the_first_screen_says_what_holds_at_which_scale_and_what_to_use(page):
    text = page.read_text(encoding="utf-8")
    screen = text[text.index('id="glance"') : text.index("<nav>")]
    links = re.findall(r'href="#claim-([^"]+)"', screen)
    assert sorted(links) == sorted(claim.id for claim in claim_specs()), "each claim once"
    first = screen[: screen.index("<details")]
    assert "Holds here</span> (1 of" in first
    assert re.findall(r'href="#claim-([^"]+)"', first) == ["skew-beats-kl"]
    assert "tiny-llama (teacher 1,234,567 parameters, student 123,456)" in first
    assert "cpu (A CPU &amp; Co, 2 threads)" in first
    assert re.search(
        r"<li>Dolly \(ROUGE-L\): SKL 3\d\.\d\d is highest of 4; significantly above all others; this is the set Dolly "
        r"alone: by the mean of all 5 sets \(no test\) it is highest, too\.</li>",
        first,
    )
    assert "In short</span>: 1 of 30 claims hold here: SKL scores higher than KLD on S-NI and UnNI. " in first
    assert first.index("What to use") < first.index("Holds here"), "before the claims"


def test_text_in_a_record_cannot_become_markup(command, tmp_path):
    record = write_record(tmp_path, "kld")
    rewrite(tmp_path, record, environment__cpu="<script>alert(1)</script>")
    assert command("report", "--out", tmp_path).exit_code == 0
    html = (tmp_path / "report-tiny.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_without_records_it_says_what_to_run(command, tmp_path):
    result = command("report", "--out", tmp_path)
    assert result.exit_code == 2
    assert "no records of preset tiny" in result.stderr


def browse(folder, *arguments):
    """Chromium without a window and with a profile of its own."""
    return subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_a_claim_shows_the_effect_that_decides_it_without_being_opened(page):
    html = page.read_text(encoding="utf-8")
    card = html[html.index('id="claim-skew-beats-kl"') :]
    card = card[: card.index("<details>")]
    assert re.search(r"Deciding: SKL − KLD, \w.*<strong>[+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\] ROUGE-L", card)
    opened = html[html.index('id="claim-alpha-0.1-best-skl"') :]
    headings = re.findall(r"<th[^>]*>([^<]+)</th>", opened[: opened.index("</table>")])
    assert headings[-2:] == ["visible from", "repeats needed"]
    converging = html[html.index('id="claim-skew-beats-kl"') : html.index('id="claim-skew-beats-reverse-kl"')]
    assert "<td></td><td></td></tr>" in converging, "what holds needs no more seeds"
    missing = html[html.index('id="claim-capacity-scaled-balanced"') :]
    assert "Deciding" not in missing[: missing.index("<details>")]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(PDFTOTEXT is None, reason="needs pdftotext")
def test_print_holds_what_is_closed_on_the_screen(page, tmp_path):
    printed = tmp_path / "report.pdf"
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri())
    text = subprocess.run([PDFTOTEXT, "-layout", printed, "-"], capture_output=True, text=True, check=True).stdout
    assert "23.52 ± 0.19 (M)" in text, "a published value"
    effects = re.findall(r"SKL − KLD, UnNI\s+[+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\] ROUGE-L", text)
    assert len(effects) == 1, "a comparison that does not decide its claim"
    assert "student_config" not in text, "configurations of runs are not for print"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_browser_it_sorts_filters_and_opens_without_an_error(page, tmp_path, width):
    html = page.read_text(encoding="utf-8")
    watched = "<script>window.errors = []; addEventListener('error', e => window.errors.push(e.message));</script>"
    visit = f"<script>{VISIT}</script>"
    visited = tmp_path / "visited.html"
    visited.write_text(
        html.replace("<head>", f"<head>{watched}").replace("</body>", f"{visit}</body>"), encoding="utf-8"
    )
    done = browse(tmp_path, f"--window-size={width},900", "--enable-logging=stderr", "--dump-dom", visited.as_uri())
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    seen = json.loads(found.group(1).replace("&quot;", '"'))
    assert seen["errors"] == []
    assert "CONSOLE" not in done.stderr
    numbers = [float(text.split()[0]) for text in seen["up"] if text]
    assert numbers == sorted(numbers)
    assert [float(text.split()[0]) for text in seen["down"] if text] == numbers[::-1]
    assert seen["up"][-1] == seen["down"][-1] == "", "the row without runs comes last, whichever way round"
    assert seen["sorted"] == "descending"
    assert [re.sub("-[0-9a-f]+$", "", words) for words in seen["shown"]] == [
        *("dolly-kld-dataset-s20", "dolly-rkld-dataset-s20")
    ]
    assert seen["opened"] is True
    assert seen["curves"] == 2, "the loss in training and validation; phi is 0 throughout"
    assert seen["images"] == [True, True]
    assert "ROUGE-L" in seen["effect"]
    assert seen["wrapping"] == 0
    assert seen["picture"] >= PRINTED_PAGE, "as large as in print, whatever the screen"
    assert seen["box"] == "auto", "and the box scrolls, not the page"
    assert seen["before"] == seen["after"] > 0
    assert seen["printed"] == 0
    assert seen["wide"] is False, "nothing but tables scrolls sideways"
    assert seen["outside"] == []
