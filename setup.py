"""The README as an index of packages shows it: without pictures and links to files, which lead nowhere there."""

import re
from pathlib import Path

from setuptools import setup

FILE = r"\((?!https?:)[^)\s]+\)"  # where a link leads, if that is no address

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
readme = re.sub(rf"!\[[^\]]*\]{FILE}\n*", "", readme)
readme = re.sub(rf"\[([^\]]*)\]{FILE}", r"\1", readme)
setup(long_description=readme, long_description_content_type="text/markdown")
