"""Architecture search: spaces, populations that ask and tell, the journal of scores. Knows no Ray."""
