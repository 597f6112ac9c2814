"""The documentation as a site: sphinx-build -W docs build/docs"""

project, author, release = "L2L", "the L2L authors", "0.2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_theme, html_title = "furo", "L2L"
exclude_patterns = ["_build"]
autodoc_typehints, autodoc_member_order = "description", "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_inherit_docstrings = False
default_role = "code"
