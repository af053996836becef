"""NASRec networks (arXiv 2207.07187): blocks that mix dense and sparse operators, alone or with shared weights."""
