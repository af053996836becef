"""SASRec (Kang and McAuley 2018, arXiv 1808.09781) on jagged sequences."""
