"""Reference pages of the documentation, generated from the code whenever the site is built.

`hooks` is what MkDocs calls. Each other module makes the pages, or the piece of a page, that its name says.
"""
