"""Suite files, and the plans they unfold into."""
