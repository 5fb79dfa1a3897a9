"""The page on protocols says what the code does."""

from distillhub.evaluation import protocols
from tests.protocol_page import PAGE, page


def test_the_page_on_protocols_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "mend with: python -m tests.protocol_page"


def test_every_protocol_names_its_source():
    assert [name for name in protocols.names() if not protocols.get(name).source] == []
