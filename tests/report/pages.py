"""What the tests look for on a report's page."""

import html.parser

FIGURES = {
    "convergence",
    "spectrum",
    "min_eigenvalue",
    "min_eigenvalue_by_width",
    "scores",
    "losses",
    "agreement",
    "by_width",
}


class Page(html.parser.HTMLParser):
    """Figures and their captions; everything that would be loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.images, self.captions, self.links, self.open = {}, {}, [], []
        self.figure = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [v for k, v in attributes if k in ("href", "src") and "data:" not in v]
        self.links += [tag] if tag in ("script", "link", "iframe") else []
        if tag == "figure":
            self.figure = values["id"]
        if tag == "img":
            self.images[self.figure] = values
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "figcaption":
            self.captions[self.figure] = data
