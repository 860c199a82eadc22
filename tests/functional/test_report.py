"""The report in a real browser: what it draws, what it asks the network for, and how it obeys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.browser import Page, browser, program
from tests.unit.replay import report_recordings as stories
from virtflow.replay.report.page import page as report

pytestmark = [
    pytest.mark.must_run,
    pytest.mark.timeout(120),
    pytest.mark.skipif(program() is None, reason="needs chromium-headless-shell, or another Chromium"),
]

STATE = "document.querySelector(`.node[data-task='${model.tasks.findIndex((t) => t.name === NAME)}']`).dataset.state"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reports")
    for name, story in stories.STORIES.items():
        (directory / f"{name}.html").write_text(report(story()))
    return directory


@pytest.fixture
def page(chromium: Page) -> Iterator[Page]:
    """Whatever a test does with it: nothing may be said on the console, and nothing asked for."""
    page = chromium
    page.console.clear()
    page.requests.clear()
    page.prefer("light")
    page.resize(1440, 900)
    yield page
    assert page.console == []
    assert [url for url in page.requests if not url.startswith("file:///")] == []
    assert len(page.requests) <= 2


def state(page: Page, task: str) -> str:
    return str(page.run(STATE.replace("NAME", json.dumps(task))))


def position(page: Page) -> int:
    return int(page.run("now.position"))


def text(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector({json.dumps(selector)}).innerText"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.press(key)


@pytest.mark.parametrize("story", list(stories.STORIES))
def test_every_story_is_drawn_without_an_error_or_a_request(page: Page, reports: Path, story: str) -> None:
    page.visit(reports / f"{story}.html")
    tasks = page.run("model.tasks.length")
    assert page.run("document.querySelectorAll('.node[data-state]').length") == tasks
    assert page.run("document.querySelectorAll('.row').length") == tasks
    for tab in ("events", "things", "xml", "operation", "timeline"):
        page.run(f"openTab('{tab}')")
        assert page.run(f"document.getElementById('view-{tab}').childElementCount") > 0


def test_it_opens_with_what_went_wrong_first(page: Page, reports: Path) -> None:
    page.visit(reports / "failed.html")
    assert text(page, "#outcome") == "REVERTED"
    assert stories.CAUSE in text(page, ".cause.first")
    assert text(page, "#task h2") == "StartDomain"
    assert stories.CAUSE in text(page, "#task .error")
    assert state(page, "StartDomain") == "failed"
    assert state(page, "WaitRunning") == "pending"


def test_the_scrubber_moves_the_states_in_both_directions(page: Page, reports: Path) -> None:
    page.visit(reports / "failed.html")
    slide = "(p => { const s = byId('position'); s.value = p; s.dispatchEvent(new Event('input')); })"
    page.run(f"{slide}(model.events.length)")
    assert state(page, "FetchBase") == "undone"
    page.run(f"{slide}(model.tasks.find((t) => t.name === 'FetchBase').spans[0].first + 1)")
    assert state(page, "FetchBase") == "running"
    assert state(page, "StartDomain") == "pending"
    page.run(f"{slide}(0)")
    assert page.run("document.querySelectorAll('.node:not([data-state=pending])').length") == 0
    assert text(page, "#moment") == "Before the first event"


def test_the_keyboard_does_everything(page: Page, reports: Path) -> None:
    page.visit(reports / "failed.html")
    end = page.run("LAST")
    press(page, "Home")
    assert position(page) == 0
    press(page, "ArrowRight", "ArrowRight", "ArrowLeft")
    assert position(page) == 1
    page.press("ArrowRight", shift=True)
    assert position(page) == 11
    press(page, "f")
    assert state(page, "StartDomain") == "failed"
    press(page, "End")
    assert position(page) == end
    press(page, "2")
    assert page.run("byId('view-events').hidden") is False
    press(page, "1", "s")
    assert text(page, ".mode") == "by steps"
    press(page, "?")
    assert page.run("byId('help').open") is True
    press(page, "Escape")
    before = page.run("now.task")
    press(page, "k")
    assert page.run("model.order.indexOf(now.task)") == page.run(f"model.order.indexOf({before})") - 1


def test_everything_that_can_be_focused_is_named_and_shows_it(page: Page, reports: Path) -> None:
    page.visit(reports / "failed.html")
    seen = []
    for _ in range(40):
        press(page, "Tab")
        focus = page.run(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e); return {"
            " at: e.id || e.className.baseVal || e.className || e.tagName,"
            " name: e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent,"
            " outline: s.outlineStyle !== 'none' || e.classList.contains('node') }; })()"
        )
        if focus["at"] in (*seen[:1], "BODY"):
            break
        seen.append(focus["at"])
        assert focus["name"].strip(), focus
        assert focus["outline"], focus
    assert {"search", "theme", "position", "tab-timeline"} <= set(seen)
    assert seen.index("search") < seen.index("position") < seen.index("tab-timeline")
    assert sum(at == "node" for at in seen) == 1, "one stop for the whole graph: the arrows go on from there"


def test_arrows_move_the_focus_through_the_graph(page: Page, reports: Path) -> None:
    page.visit(reports / "success.html")
    page.run("nodes[now.task].box.focus()")
    press(page, "ArrowDown", "ArrowDown")
    assert page.run("document.activeElement.getAttribute('aria-label')") == "CreateInstanceEntry: done"
    assert text(page, "#task h2") == "CreateInstanceEntry"


def test_search_finds_tasks_and_errors(page: Page, reports: Path) -> None:
    page.visit(reports / "failed.html")
    press(page, "/", *"fetch")
    assert page.run("document.activeElement.id") == "search"
    assert text(page, "#task h2") == "FetchBase"
    assert page.run("document.querySelectorAll('.node:not(.miss)').length") == 1
    press(page, "Escape")
    assert page.run("document.querySelectorAll('.node.miss').length") == 0
    press(page, "/", *"guest memory", "Enter")
    assert text(page, "#task h2") in ("StartDomain", "SpawnOnHost")


def test_an_input_leads_to_the_task_that_made_it(page: Page, reports: Path) -> None:
    page.visit(reports / "success.html")
    page.run("select(model.tasks.findIndex((t) => t.name === 'DefineDomain'))")
    page.run("document.querySelector('.origin button').click()")
    assert text(page, "#task h2") == "BuildDomainXml"


def test_the_xml_of_two_attempts_is_compared(page: Page, reports: Path) -> None:
    page.visit(reports / "rescheduled.html")
    press(page, "4")
    assert "52:54:00:3c:11:7a" in text(page, "del.line")
    assert "52:54:00:3c:11:9e" in text(page, "ins.line")
    assert text(page, "#changed") == "2 lines differ"


def test_hostile_text_stays_text(page: Page, reports: Path) -> None:
    page.visit(reports / "hostile.html")
    for tab in ("events", "things", "xml", "operation", "timeline"):
        page.run(f"openTab('{tab}')")
    page.run("select(0); document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.run("document.querySelectorAll('img, iframe, object, base').length") == 0
    assert page.run("document.querySelectorAll('script').length") == 2
    assert "</script><img" in text(page, "#task h2")
    assert "\u202e" not in text(page, "body")


def test_the_policy_refuses_what_the_page_did_not_bring(chromium: Page, reports: Path) -> None:
    page = chromium
    page.visit(reports / "success.html")
    tried = page.run(
        "(() => { const s = document.createElement('script'); try { s.textContent = 'window.stolen = 1'; }"
        " catch (e) { return e.name; } document.body.append(s); return String(window.stolen); })()"
    )
    assert tried == "TypeError"
    asked = page.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
    assert asked == "refused"
    assert any("Content Security Policy" in said for said in page.console)


def test_light_and_dark_follow_the_reader_and_the_button(page: Page, reports: Path) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    page.visit(reports / "success.html")
    light = page.run(shade)
    page.prefer("dark")
    dark = page.run(shade)
    assert light != dark
    press(page, "d")
    assert page.run(shade) == light
    press(page, "d")
    assert page.run(shade) == dark
    page.run("localStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(page: Page, reports: Path, scheme: str) -> None:
    """WCAG 2 AA asks for 4.5 to 1."""
    page.prefer(scheme)
    page.visit(reports / "failed.html")
    poor = page.run(
        """(() => {
          const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
          const rgb = (colour, under) => {
            canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
            canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          const light = (c) => c.map((v) => v / 255).map((v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          const behind = (e) => e === null ? 'white' :
            `rgb(${rgb(getComputedStyle(e).backgroundColor, behind(e.parentElement))})`;
          const texts = [...document.querySelectorAll('body *:not(svg *)')].filter((e) => e.offsetParent
            && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())
            && !e.closest('.sr, :disabled, [aria-hidden=true]'));
          return texts.map((e) => {
            const under = behind(e);
            const [a, b] = [light(rgb(getComputedStyle(e).color, under)), light(rgb(under, 'white'))];
            return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.className, e.textContent.slice(0, 30)];
          }).filter(([ratio]) => ratio < 4.5);
        })()"""
    )
    assert poor == []


def test_five_hundred_tasks_answer_at_once(page: Page, reports: Path) -> None:
    page.visit(reports / "many.html")
    spent = page.run(
        """(() => {
          const spent = [];
          for (let i = 1; i <= 41; i += 1) {
            const began = performance.now();
            go(i * 48); document.body.offsetHeight;
            spent.push(performance.now() - began);
          }
          return spent.sort((a, b) => a - b)[20];
        })()"""
    )
    assert spent < 400, "milliseconds to another moment, on a busy machine; about 25 on an idle one"
    press(page, "2")
    assert page.run("document.querySelectorAll('.event').length") < 120
    press(page, "Home")
    assert text(page, ".event .number") == "1"
    press(page, "End")
    assert page.run("Boolean(document.getElementById('event-' + (LAST - 1)))") is True


def test_a_narrow_window_has_everything_below_each_other(page: Page, reports: Path) -> None:
    page.resize(390, 800)
    page.visit(reports / "failed.html")
    assert page.run("document.documentElement.scrollWidth") <= 390
    tops = page.run("['graph', 'middle', 'task'].map((id) => byId(id).getBoundingClientRect().top)")
    assert tops == sorted(tops)
