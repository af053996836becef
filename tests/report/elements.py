"""Pages taken apart."""

import re
from html.parser import HTMLParser

HOSTILE = '</title><script src="https://example.com/x.js"></script>"><img src=x onerror=alert(1)>'


class Elements(HTMLParser):
    """Collects elements with their attributes, and text with the elements it stands in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())
        if self.in_cell:
            self.rows[-1][-1] += data.strip()


def assert_loads_nothing(page: str) -> None:
    assert "http://" not in page
    assert "https://" not in page
    for tag, attributes in Elements(page).elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "image", "base")
        assert not {"src", "srcset", "data"} & attributes.keys()
        assert all(not name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert "@import" not in page
