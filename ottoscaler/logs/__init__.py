"""Worker logs: followed from a mark to the end, and handed on line by line until each is acknowledged."""
