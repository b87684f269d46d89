"""The page in headless Chromium: the slider against float64 and autograd, keys, hostile names, narrow screens."""

import math

import pytest
import torch

from browser import CHROMIUM, Browser
from setpoint.insight.explain import explain_rows
from setpoint.insight.page import Page, explanation_parts
from setpoint.insight.report import write_report
from setpoint.insight.rows import counted
from setpoint.insight.slides import slides

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]
HOSTILE = "<b>x</b></script><img src=x onerror=\"document.title='hacked'\"><!--\u2028"
READ = """[...document.querySelectorAll('[data-row]')].map((card) => ({
  effective: Number(card.dataset.effective), shown: card.querySelector('.effective').textContent,
  lines: [...card.querySelectorAll('[data-class]')].map((line) =>
    [line.dataset.class, Number(line.dataset.target), Number(line.dataset.gradient)]),
}))"""


def made(folder, classes=6, student=True, names=None, rows=40, name="page"):
    """A page of random logits, and what it is of."""
    generator = torch.Generator().manual_seed(classes)
    v = 4 * torch.randn(rows, classes, generator=generator)
    z = v / 2 + torch.randn(rows, classes, generator=generator)
    y = v[:, : classes - 1].argmax(-1)
    v[::3, -1] = z[::3, -1] = -math.inf  # a class that is masked in some rows
    names = names or [f"class {k}" for k in range(classes)]
    given = counted(v, y, z if student else None, class_names=names, row_names=[f"{names[0]} {i}" for i in range(rows)])
    found = explain_rows(given, 4.0)
    chosen = slides(given, found)
    page = Page(names[0], "about", "verdict", found, names, chosen, rest=explanation_parts(found, {}))
    path = folder / f"{name}.html"
    write_report(path, page)
    return path.as_uri(), chosen


def expected(slide, t):
    """Targets, effective classes and the gradient T²·∂KL/∂z in float64, the gradient by autograd."""
    v = torch.tensor(slide.teacher, dtype=torch.float64)
    z = torch.zeros_like(v) if slide.student is None else torch.tensor(slide.student, dtype=torch.float64)
    live = v > -math.inf
    z = z[live].requires_grad_()
    p = torch.softmax(v[live] / t, -1)
    loss = t**2 * (p * (p.log() - torch.log_softmax(z / t, -1))).sum()
    gradient, targets = torch.zeros_like(v), torch.zeros_like(v)
    gradient[live], targets[live] = torch.autograd.grad(loss, z)[0], p
    effective = float(torch.exp(-(p * p.log()).sum()))
    others = [k for k in range(len(v)) if k not in slide.shown]
    lines = [[str(k), float(targets[k]), float(gradient[k])] for k in slide.shown]
    if others:
        lines.append(["others", float(targets[others].sum()), float(gradient[others].sum())])
    return effective, lines


def assert_shows(browser, chosen, t):
    for card, slide in zip(browser.evaluate(READ), chosen, strict=True):
        effective, lines = expected(slide, t)
        assert card["effective"] == pytest.approx(effective, abs=1e-6)
        assert card["shown"] == f"{effective:.2f}"
        assert [line[0] for line in card["lines"]] == [line[0] for line in lines]
        for (_, p, g), (_, target, gradient) in zip(card["lines"], lines, strict=True):
            assert p == pytest.approx(target, abs=1e-6)
            assert g == pytest.approx(gradient, abs=1e-6)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize(("classes", "student"), [(6, True), (40, False)])
def test_the_slider_shows_what_python_computes(browser, tmp_path, classes, student):
    address, chosen = made(tmp_path, classes, student)
    assert len(chosen) == 12
    browser.errors.clear()
    browser.open(address)
    assert_shows(browser, chosen, 4.0)  # where the explanation is
    for low, log_t in ((False, 2.35), (True, -2.0), (False, 5.0)):
        browser.evaluate(
            f"(() => {{ const s = document.getElementById('temperature'); s.value = {log_t};"
            " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        t = float(browser.evaluate("document.getElementById('slides').dataset.temperature"))
        assert t == pytest.approx(2**log_t, abs=1e-9), low
        assert_shows(browser, chosen, t)
    browser.open(f"{address}#T=3")
    assert browser.evaluate("document.getElementById('temperature-value').textContent") == "T = 3"
    assert_shows(browser, chosen, 3.0)
    browser.evaluate("location.hash = '#T=0.7'")
    browser.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert_shows(browser, chosen, 0.7)
    browser.evaluate("document.querySelector('button[data-t]').click()")
    assert_shows(browser, chosen, 1.0)
    # All plots are drawn, and nothing was refused or went wrong.
    drawn = "[...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.main-svg').length)"
    assert min(browser.evaluate(drawn)) >= 1
    assert browser.errors == []


def test_keys_move_the_slider_and_it_says_where_it_is(browser, tmp_path):
    address, chosen = made(tmp_path)
    browser.open(f"{address}#T=1")
    browser.evaluate("document.getElementById('move-the-temperature').scrollIntoView()")
    browser.evaluate("document.getElementById('temperature').focus()")
    browser.press("ArrowRight", 4)
    says = "document.getElementById('temperature').getAttribute('aria-valuetext')"
    assert browser.evaluate(says) == "T = 1.15"  # 2 ** 0.2
    assert_shows(browser, chosen, 2**0.2)
    browser.press("End")
    assert browser.evaluate(says) == "T = 32"
    browser.press("Home")
    assert browser.evaluate(says) == "T = 0.25"
    assert browser.evaluate("location.hash") == "#T=0.25"


def test_hostile_names_are_text(browser, tmp_path):
    address, chosen = made(tmp_path, names=[f"{HOSTILE}{k}" for k in range(6)])
    browser.open(address)
    assert browser.evaluate("document.title").startswith(f"{HOSTILE}0"[:-1])
    assert browser.evaluate("document.querySelectorAll('img, [onerror]').length") == 0
    assert browser.evaluate("document.querySelector('.card th[scope=row]').textContent") == f"{HOSTILE}0"
    ticks = "[...document.querySelectorAll('#plot-classes .ytick text')].map((tick) => tick.textContent)"
    assert f"{HOSTILE}1".replace("\u2028", "") in [tick.replace("\u2028", "") for tick in browser.evaluate(ticks)]
    assert_shows(browser, chosen, 4.0)


def test_a_script_that_got_into_the_page_would_not_run(browser, tmp_path):
    address, _ = made(tmp_path)
    path = tmp_path / "page.html"
    text = path.read_text().replace("</main>", "<script>document.title = 'hacked'</script></main>")
    path.write_text(text)
    browser.errors.clear()
    browser.open(address)
    assert browser.evaluate("document.title") != "hacked"
    assert len(browser.errors) == 1
    browser.errors.clear()


def test_a_narrow_screen_does_not_scroll_sideways(browser, tmp_path):
    names = [f"a rather long name of a class {k} " + "x" * 60 for k in range(60)]
    address, _ = made(tmp_path, 60, names=names)
    browser.open(address, width=360)
    assert browser.evaluate("innerWidth") == 360
    assert browser.evaluate("document.documentElement.scrollWidth") == 360


def test_dark_screens_get_light_text_in_the_plots_too(browser, tmp_path):
    address, _ = made(tmp_path)
    ink = "getComputedStyle(document.querySelector('#plot-nll .xtitle')).fill"
    for scheme, colour in (("light", "rgb(28, 31, 38)"), ("dark", "rgb(232, 234, 238)")):
        browser.open(address, scheme=scheme)
        assert browser.evaluate("getComputedStyle(document.body).color") == colour
        assert browser.evaluate(ink) == colour
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert browser.evaluate(ink) == "rgb(28, 31, 38)"


def test_it_prints(browser, tmp_path):
    address, _ = made(tmp_path)
    browser.open(address, scheme="dark")
    look = """addEventListener('beforeprint', () => { window.seen = {
        width: document.querySelector('#plot-nll .main-svg').getAttribute('width'),
        fits: [...document.querySelectorAll('figure')].every((f) => f.scrollWidth <= f.clientWidth + 1),
    }; })"""
    browser.evaluate(look)
    browser.paper(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000
    assert browser.evaluate("window.seen.width") == "330"
