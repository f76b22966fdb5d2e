"""Judge a result against relevance judgments and against an earlier result."""
