"""What a person sees of a search: the live table, the page, and the files that lead to the endpoint."""
