"""Pages for people: templates, static files and charts; it gets values and gives markup, and asks nobody for them."""
