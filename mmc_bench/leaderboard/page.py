"""The leaderboard's page, as one HTML file."""

import json
from typing import Any


def page_html(payload: dict[str, Any]) -> str:
    """Return the page that shows a payload; equal payloads give equal text."""
    content = json.dumps(payload, ensure_ascii=True, sort_keys=True, allow_nan=False)
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Leaderboard</title>\n'
        f'<script type="application/json" id="payload">{content}</script>\n</html>\n'
    )
