"""What the leaderboard's page does in a real Chromium."""

import re
from urllib.parse import parse_qs, urlencode

import pytest
from helpers.page import HOSTILE, HOSTILE_SHOWN, SPLITS, make_payload, make_tuned_payload

from mmc_bench.leaderboard.page import page_html


@pytest.fixture
def payload():
    return make_payload()


class Page:
    """A leaderboard's page in the browser."""

    def __init__(self, browser, file):
        self.browser, self.address = browser, file.as_uri()

    def open(self, hash_=""):
        self.browser.get("about:blank")  # a change of the hash alone would not load the page again
        self.browser.get(self.address + hash_)
        return self

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 5, poll_frequency=0.02).until(lambda _: self.run(f"return {condition}"))

    def sort(self, key):
        self.run("document.querySelector(`th[data-key='${arguments[0]}'] button`).click()", key)

    def fill(self, identity, value):
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        self.run(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", identity, value)

    def tick(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def rows(self):
        """Return the ids of the rows that can be seen, from the top."""
        lines = "[...document.querySelectorAll('#results tr[data-row]')].filter((line) => line.checkVisibility())"
        return [f"r{index}" for index in self.run(f"return {lines}.map((line) => line.dataset.row)")]

    def count(self):
        return self.run("return document.getElementById('count').textContent")

    def sorted_by(self):
        return self.run("return [...document.querySelectorAll('[aria-sort]')].map((h) => [h.dataset.key, h.ariaSort])")

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def emulate(self, command, **parameters):
        return self.browser.execute_cdp_cmd(f"Emulation.{command}", parameters)

    def open_row(self, identity):
        self.run("document.querySelector(`a[href='#${arguments[0]}']`).click()", identity)
        self.wait("document.querySelector('dialog').open")


@pytest.fixture
def page(chromium, tmp_path, payload):
    """Return a maker of pages; the browser may have nothing to complain of in the end."""

    def make(content=payload):
        file = tmp_path / "index.html"
        file.write_text(page_html(content), encoding="utf-8")
        return Page(chromium, file).open()

    chromium.get_log("browser")
    yield make
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert chromium.get_log("browser") == []


@pytest.mark.slow
def test_sorting_goes_both_ways_with_absent_values_last_and_the_reference_first(page):
    page = page()
    assert page.sorted_by() == [["tier", "ascending"]]
    assert page.rows() == ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"]
    page.sort("cue_reliance")
    assert page.sorted_by() == [["cue_reliance", "ascending"]]
    page.sort("cue_reliance")
    assert page.sorted_by() == [["cue_reliance", "descending"]]
    assert page.rows() == ["r0", "r3", "r2", "r1", "r4", "r5", "r7", "r6"]
    page.sort("method")
    assert page.rows() == ["r0", "r1", "r3", "r2", "r4", "r5", "r7", "r6"]
    page.sort("setting")
    page.sort("setting")
    assert page.rows()[:3] == ["r5", "r6", "r7"]


@pytest.mark.slow
def test_without_groups_all_settings_are_sorted_as_one(page):
    page = page()
    page.tick("#group")
    page.sort("worst_split")
    assert page.rows() == ["r1", "r2", "r6", "r7", "r3", "r5", "r0", "r4"]
    page.sort("worst_split")
    assert page.rows() == ["r0", "r5", "r3", "r7", "r6", "r2", "r1", "r4"]
    page.tick("#group")
    assert page.rows() == ["r0", "r3", "r2", "r1", "r4", "r5", "r7", "r6"]


def test_filters_keep_what_fits_and_the_reference_beside_it(page):
    page = page()
    assert page.count() == "6 of 6 results shown, in 2 of 2 settings"
    for control, value, left in [
        ("filter-dataset", "letters", ["r5", "r6", "r7"]),
        ("filter-backbone", "small-net", ["r0", "r1", "r2", "r3", "r4"]),
        ("filter-rate", "0.8", ["r5", "r6", "r7"]),
        ("filter-search", "NAIVE", ["r0", "r3"]),
    ]:
        page.fill(control, value)
        assert page.rows() == left
        page.tick("#reset")
        assert len(page.rows()) == 8
    page.tick("input[name=need][value=cued]")
    assert page.rows() == ["r0", "r2", "r3", "r4", "r5", "r6"]
    assert page.count() == "4 of 6 results shown, in 2 of 2 settings"
    page.fill("filter-search", "no such method")
    assert page.rows() == [] and page.run("return document.getElementById('none').checkVisibility()")


def test_one_control_switches_between_protocols(page):
    page = page(make_tuned_payload())
    visible = """return [...document.querySelectorAll(arguments[0])].filter((part) => part.checkVisibility())
      .map((part) => part.textContent.trim())"""
    chosen = "return document.querySelector('[name=protocol]:checked').value"
    assert (page.run(chosen), page.rows()) == ("clean", ["r8", "r9", "r10"])
    assert page.count() == "2 of 2 results shown, in 1 of 1 settings"
    assert page.run("return document.getElementById('meaning').textContent") == "the best on validation NC"
    assert [name.split()[-1] for name in page.run(visible, ".overall tbody .number")] == ["±1.0", "–"]
    assert [text.partition(":")[0] for text in page.run(visible, ".cd g")] == ["tune", "naive", "mend"]
    assert page.run("return [...document.querySelectorAll('.point')].map((one) => one.dataset.row)") == ["9", "10", "8"]
    page.tick("[name=protocol][value=published]")
    assert page.rows() == ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"]
    assert len(page.run(visible, ".overall tbody tr:not(.protocol)")) == 2
    assert [text.partition(":")[0] for text in page.run(visible, ".cd g")] == ["mend", "tune", "naive"]
    page.tick("#group")
    page.sort("worst_split")
    assert page.rows()[0] == "r1"
    page.wait("location.hash.includes('protocol=published') && location.hash.includes('worst_split')")
    page.open(page.run("return location.hash"))
    assert (page.run(chosen), page.rows()[0]) == ("published", "r1")


def test_a_tuned_row_tells_its_gap_and_how_it_was_tuned(page):
    page = page(make_tuned_payload())
    page.sort("gap")
    assert page.rows() == ["r8", "r9", "r10"]
    page.open_row("r9")
    text = page.run("return document.querySelector('dialog').innerText")
    assert "+1.2 ± 0.5" in text and "clean: lr = 0.1" in text
    assert "in 8 trials on seed 100, drawn from lr log-uniform" in text
    assert "3 other sets within 1 percentage point of the validation NC" in text
    assert "batch_size = 64 (by the suite, the command or the method’s definition, before the search)" in text


def test_a_row_tells_which_parameters_it_was_given(page):
    page = page()
    given = "return [...document.querySelectorAll('dialog dt')].map((name) => name.textContent).includes('Given')"
    page.open_row("r1")
    assert not page.run(given)
    page.open()
    page.open_row("r2")
    assert page.run(given)
    text = page.run("return document.querySelector('dialog').innerText")
    assert "batch_size = 64, lr = 0.001 (by the suite, the command or the method’s definition)" in text


def test_details_that_are_opened_while_others_close_stay_open(page):
    page = page()
    page.open_row("r1")
    page.run("""
        const dialog = document.querySelector("dialog");
        dialog.addEventListener("close", () => { window.heard = true; });
        dialog.querySelector(".close").click();
        document.querySelector("a[href='#r2']").click();""")
    page.wait("window.heard")
    assert page.run("return document.querySelector('dialog').open")


def test_every_column_is_in_sight_at_1400_pixels(page):
    page = page(make_tuned_payload())
    page.emulate("setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False)
    page.open()
    right = (
        "Math.max(...[...document.querySelectorAll('#results td.seconds')].map((c) => c.getBoundingClientRect().right))"
    )
    assert 0 < page.run(f"return {right}") <= page.run("return document.documentElement.clientWidth")


def test_a_view_is_shared_by_its_address(page):
    page = page()
    page.fill("filter-dataset", "shapes")
    page.fill("filter-search", "e")
    page.sort("NC")
    page.sort("NC")
    page.wait("location.hash.includes('ascending') || location.hash.includes('sort=NC')")
    hash_, rows = page.run("return location.hash"), page.rows()
    assert parse_qs(hash_[1:]) == {"dataset": ["shapes"], "q": ["e"], "sort": ["NC"]}
    page.open(hash_)
    assert page.rows() == rows == ["r0", "r3", "r2", "r1", "r4"]
    page.run("location.hash = '#q=mend'")
    page.wait("document.getElementById('filter-search').value === 'mend'")
    assert page.rows() == ["r0", "r1", "r5", "r7"]


def test_an_address_of_another_leaderboard_shows_everything(page):
    page = page().open("#" + urlencode({"dataset": "gone", "sort": "x", "dir": "y", "row": "z", "__proto__": "p"}))
    assert len(page.rows()) == 8 and page.sorted_by() == [["tier", "ascending"]]


def test_an_address_opens_a_row(page):
    page = page().open("#" + urlencode({"row": "shapes · small-net · 0.9 / tune"}))
    assert page.run("return document.querySelector('dialog[open] h2').textContent") == "tune"


@pytest.mark.slow
def test_hostile_names_are_shown_and_run_nothing(page, payload):
    payload["rows"][1] |= {"method": HOSTILE, "by": HOSTILE, "versions": {HOSTILE: HOSTILE}, "device": HOSTILE}
    payload["rows"][1] |= {"given": {HOSTILE: HOSTILE}}
    payload["rows"][1] |= {"records": [HOSTILE, "javascript:window.hacked=1"], "summary": HOSTILE, "needs": [HOSTILE]}
    payload["settings"][0] |= {"dataset": HOSTILE}
    page = page(payload)
    page.open_row("r1")
    assert page.run("return document.querySelector('dialog h2').textContent") == HOSTILE_SHOWN
    assert HOSTILE_SHOWN in page.run("return document.querySelector('#results .method a').closest('tbody').textContent")
    assert page.run("return [window.hacked, document.images.length, document.scripts.length]") == [None, 0, 2]
    links = page.run("return [...document.querySelectorAll('dialog a')].map((a) => a.href)")
    folder = page.address.rpartition("/")[0]
    assert len(links) == 2 and all(link.startswith(f"{folder}/") for link in links)
    assert links[1] == f"{folder}/javascript%3Awindow.hacked%3D1"
    page.wait("location.hash.length > 1")
    page.open(page.run("return location.hash"))
    assert page.run("return [document.querySelector('dialog').open, window.hacked]") == [True, None]


def test_the_keyboard_sorts_and_opens_and_comes_back(page):
    from selenium.webdriver import Keys

    page = page()
    page.run("document.querySelector(\"th[data-key='worst_split'] button\").focus()")
    page.press(Keys.ENTER)
    assert page.sorted_by() == [["worst_split", "descending"]]
    page.run("document.querySelector(\"th[data-key='seconds'] button\").focus()")
    page.press(Keys.TAB, Keys.TAB)
    assert page.run("return document.activeElement.hash") == "#r1"
    assert page.run("return document.querySelector('.point.lit text').textContent") == "mend"
    page.press(Keys.ENTER)
    page.wait("document.querySelector('dialog').open")
    assert page.run("return document.querySelector('dialog').contains(document.activeElement)")
    page.press(Keys.ESCAPE)
    page.wait("!document.querySelector('dialog').open")
    assert page.run("return document.activeElement.hash") == "#r1"


def lines(page, chart):
    """Return what is drawn: for each split the points in pixels and what their titles say."""
    script = """
    const at = (mark) => [...mark.getAttribute("transform").match(/[-\\d.]+/g).map(Number), mark.textContent];
    return Object.fromEntries([...document.querySelectorAll(`${arguments[0]} .line`)].map((line) =>
      [line.dataset.split, [...line.querySelectorAll(".at")].map(at)]))"""
    return page.run(script, chart)


@pytest.mark.slow
def test_curves_have_the_payload_s_values_at_their_places(page, payload):
    page = page()
    page.open_row("r1")
    given = payload["rows"][1]["curves"]
    for chart, kind, factor, digits in [("#accuracy-curves", "accuracy", 100, 1), ("#loss-curves", "loss", 1, 3)]:
        drawn = lines(page, chart)
        assert set(drawn) == set(SPLITS)
        points = [
            (t, value, *pixels)
            for split in SPLITS
            for t, value, pixels in zip(given["t"], given["splits"][split][kind], drawn[split], strict=True)
        ]
        low, high = min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1])
        for t, value, x, y, title in points:
            assert f"t = {t:.2f}: {factor * value:.{digits}f}" in title
            share = (value - low[1]) / (high[1] - low[1])
            assert y == pytest.approx(low[3] + share * (high[3] - low[3]), abs=0.05)
            assert x == pytest.approx(points[0][2] + t * (points[3][2] - points[0][2]), abs=0.05)
        assert high[3] < low[3] - 50


@pytest.mark.slow
def test_large_losses_are_drawn_on_a_logarithmic_scale(page, payload):
    import math

    page = page()
    page.open_row("r3")
    losses = payload["rows"][3]["curves"]["splits"]["RI"]["loss"]
    heights = [y for _, y, _ in lines(page, "#loss-curves")["RI"]]
    share = math.log1p(losses[1]) / math.log1p(losses[3])
    assert heights[1] == pytest.approx(heights[0] + share * (heights[3] - heights[0]), abs=0.05)


def test_the_trade_off_has_a_point_for_each_row_with_values(page, payload):
    page = page()
    script = """return Object.fromEntries([...document.querySelectorAll(".point")].map((point) => [point.dataset.row,
      point.querySelector(".dot").getAttribute("transform").match(/[-\\d.]+/g).map(Number)]))"""
    points = page.run(script)
    assert set(points) == {"0", "1", "2", "3"}
    values = {key: [payload["rows"][int(key)]["values"][name][0] for name in ("cue_reliance", "NC")] for key in points}
    for axis in (0, 1):
        scale = (points["1"][axis] - points["0"][axis]) / (values["1"][axis] - values["0"][axis])
        assert scale * (1, -1)[axis] > 0
        for key, place in points.items():
            expected = points["0"][axis] + scale * (values[key][axis] - values["0"][axis])
            assert place[axis] == pytest.approx(expected, abs=0.05)
    page.fill("filter-dataset", "letters")
    assert set(page.run(script)) == {"5", "6", "7"}


@pytest.mark.parametrize("payload", [make_payload(), make_tuned_payload()], ids=["published", "tuned"])
def test_a_phone_never_scrolls_sideways(page, payload):
    payload["rows"][-1]["method"] = "a-method-with-a-very-long-name-that-nobody-can-pronounce-" * 2
    page = page(payload)
    page.emulate("setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=2, mobile=True)
    page.open()
    widths = "return [document.documentElement.scrollWidth, document.querySelector('dialog').scrollWidth, innerWidth]"
    assert page.run(widths) == [320, 0, 320]
    page.open_row(payload["rows"][-1]["id"])
    width, dialog, screen = page.run(widths)
    assert width == screen == 320 and 200 < dialog < 320


def luminance(color):
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_bars_stand_out_in_the_light_and_in_the_dark(page, scheme):
    page = page()
    page.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    color = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    paper = page.run(color, "body", "backgroundColor")
    assert (luminance(paper) < 0.02) == (scheme == "dark")
    for selector in ("body", "small", ".hint", ".verified", "[aria-sort] button", ".reference td", "nav a"):
        assert contrast(page.run(color, selector, "color"), paper) >= 4.5, selector
    for split in SPLITS:
        assert contrast(page.run(color, f"td.{split} .bar", "stroke"), paper) >= 3, split


def test_without_javascript_there_is_a_plain_table_with_everything(page):
    page = page()
    page.emulate("setScriptExecutionDisabled", value=True)
    page.open()
    by = "css selector"
    assert len([line for line in page.browser.find_elements(by, "#results tr[data-row]") if line.is_displayed()]) == 8
    assert not page.browser.find_element(by, ".filters").is_displayed()
    assert len([part for part in page.browser.find_elements(by, "noscript details") if part.is_displayed()]) == 8


def test_an_empty_leaderboard_says_so(page):
    page = page({"schema": 1, "settings": [], "rows": [], "overall": []})
    assert "No results are in yet." in page.run("return document.body.innerText")
