"""Score one shard: from the rows of its input to its published part.

Start at `run_shard` in run.py. Calls go run -> score -> reader -> files; data comes back the other
way. One row goes through these files, in this order:

    rankmill/tables/parquet.py  read     row groups of a file become tables
    rankmill/tables/files.py    cast     tables get the job's types, and rows their numbers
    worker/shard/reader.py      own      tables are read ahead and cut to the shard's query groups
    worker/shard/score.py       window   windows of rows go to the scorer; bad rows are set aside
    worker/engine/scorer.py     score    texts become logits
    worker/shard/part.py        rank     groups are ranked and cut to top_k; the part is published
    worker/shard/run.py         report   the shard report commits the shard

On its way a row is in these, each made from the one before:

    pyarrow.Table   some rows of a file, from read_files and RowReader
    OwnedRows       the rows among them that the shard owns, with their query groups
    Window          the same, with the rows that get a score and those whose score is known
    PairWindow      the texts that the scorer gets; it gives WindowScores
    Scored          all scored rows of the shard; it holds Spills, in memory or on disk

Each of the others is one concern of a shard: rejects.py what cannot be scored, poison.py how bad
rows are found, group_checks.py what is wrong with a query group, reuse.py an earlier job's scores,
spill.py rows that wait for their rank, observer.py heartbeats and metrics.
"""
