"""The leaderboard's page as text: complete without a script, the same each time, and no stranger's text is markup."""

import json
import re
from html.parser import HTMLParser

import pytest
from helpers.page import HOSTILE, HOSTILE_SHOWN, SPLITS, make_payload, make_tuned_payload

from mmc_bench.leaderboard.page import page_html, record_link, script_json
from mmc_bench.report.html import number, readable


@pytest.fixture
def payload():
    return make_payload()


class Seen(HTMLParser):
    """All text outside of script and style, and every address that the page refers to."""

    def __init__(self, html):
        super().__init__()
        self.text, self.addresses, self.tags, self._inside = "", [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self._inside = tag if tag in ("script", "style") else self._inside
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data", "srcset")]

    def handle_endtag(self, tag):
        self._inside = None if tag == self._inside else self._inside

    def handle_data(self, data):
        self.text += "" if self._inside else data


def test_the_same_payload_gives_the_same_page(payload):
    again = json.loads(json.dumps(payload, sort_keys=True))
    assert page_html(payload) == page_html(again)


def test_the_page_refers_to_nothing_but_itself_and_its_records(payload):
    html = page_html(payload)
    assert {address[:1] for address in Seen(html).addresses} == {"#", ".", "d"}
    assert all(address in ("data:,",) or address[0] in "#." for address in Seen(html).addresses)
    assert "@import" not in html and not re.search(r"url\(|fetch\(|innerHTML|outerHTML|insertAdjacentHTML", html)


def test_every_number_stands_in_the_text_without_the_script(payload):
    text = " ".join(Seen(page_html(payload)).text.split())
    for shown in ("90.0 ±3.1", "91.0 ±2.0", "+40.0 ±2.0", "0.10 ±0.04", "0.50 ±0.10", "1 of 3", "missing: letters 0.8"):
        assert shown in text, shown
    for split in SPLITS:
        for loss in payload["rows"][3]["curves"]["splits"][split]["loss"]:
            assert f"{loss:.3f}" in text
    assert "verified by B. Reader, 2 of 3 cells · run by A. Author" in text


def test_without_the_script_every_protocol_is_named_and_explained():
    text = " ".join(Seen(page_html(make_tuned_payload())).text.split())
    assert "Clean: the best on validation NC." in text and "10 classes · parameters chosen by clean" in text
    assert (
        "Chosen in 8 trials on seeds 100: lr = 0.1. 3 other sets of parameters lie within 1 percentage point" in text
        and "+1.2 ±0.5" in text
    )
    alone = " ".join(Seen(page_html(make_payload())).text.split())
    assert "Nothing was tuned in these settings" in alone and "Gap" not in alone


def test_without_the_script_a_row_says_which_parameters_were_given():
    text = " ".join(Seen(page_html(make_tuned_payload())).text.split())
    assert "by the suite, the command or the method’s definition: batch_size = 64, lr = 0.001." in text
    assert "by the suite, the command or the method’s definition, before the search: batch_size = 64." in text
    assert text.count("Given by") == 2  # the others were given none


def test_one_setting_is_not_repeated_over_all_settings(payload):
    heading = '<h2 id="overall-title">'
    assert heading in page_html(payload) and heading not in page_html({**payload, "counted": 1})


def test_a_row_that_was_only_re_run_by_its_author_is_not_called_verified(payload):
    payload["rows"] = payload["rows"][:2]
    payload["rows"][1] |= {"standing": "reported"}
    text = " ".join(Seen(page_html(payload)).text.split())
    assert "verified by B. Reader" not in text and "re-run by B. Reader, 2 of 3 cells" in text


def test_a_difference_between_other_pretrained_networks_is_marked(payload):
    assert "+40.0 ±2.0†" not in "".join(Seen(page_html(payload)).text.split(" "))
    payload["rows"][1]["paired"]["same_start"] = False
    html = page_html(payload)
    assert 'title="pretrained networks of its own"' in html and "on the same pretrained" not in html


def test_hostile_text_stays_text(payload):
    payload["rows"][1] |= {"method": HOSTILE, "note": HOSTILE, "by": HOSTILE, "needs": [HOSTILE], "summary": HOSTILE}
    payload["rows"][1] |= {"given": {HOSTILE: HOSTILE}}
    payload["settings"][0] |= {"dataset": HOSTILE, "backbone": HOSTILE}
    seen = Seen(page_html(payload))
    assert seen.text.count(HOSTILE_SHOWN) > 10
    assert "img" not in seen.tags and seen.tags.count("script") == 2
    assert "\u202e" not in page_html(payload)


def test_json_in_the_page_cannot_end_its_element_and_loses_nothing():
    content = {"<b>": ["</script>", "<!--", "a & b", "\u2028\u2029", "é"]}
    text = script_json(content)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == content


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError):
        script_json({"mean": float("nan")})


def test_control_characters_are_spelled_out():
    assert readable("a\u202eb\x00c\ud800d\u2028") == "a⟨U+202E⟩b⟨U+0000⟩c⟨U+D800⟩d⟨U+2028⟩"
    assert readable("naïve – 模型 🙂") == "naïve – 模型 🙂"


@pytest.mark.parametrize("path", ["/etc/x", "//host/x", "../x", "a/../../x", "a\\b", "./x", "", "a//b"])
def test_a_path_that_leads_elsewhere_is_no_link(path):
    assert record_link(path) is None


def test_a_link_is_percent_encoded_below_the_page():
    assert record_link("javascript:alert(1)") == "./javascript%3Aalert%281%29"
    assert record_link('results/a "b"?#/x.json') == "./results/a%20%22b%22%3F%23/x.json"


def test_numbers_have_a_true_minus_and_no_negative_zero():
    assert [number(value, 1, "+") for value in (-0.04, 0.04, -3.25, 12)] == ["0.0", "0.0", "−3.2", "+12.0"]
