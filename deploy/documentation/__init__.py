"""Pages of the documentation site that are made from the code while the site is built."""
