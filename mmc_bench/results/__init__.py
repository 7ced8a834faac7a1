"""Jobs, the records they leave, and the folder that keeps them."""
