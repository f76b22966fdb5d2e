"""Score one shard: from the rows of its input to its published part.

One row goes through these files, in this order:

    rankmill/tables/files.py  read     files become tables in the job's types
    worker/shard/reader.py    own      tables are read ahead and cut to the shard's query groups
    worker/shard/score.py     score    windows of rows go through the scorer; bad rows are set aside
    worker/shard/part.py      rank     groups are ranked and cut to top_k; the part is published
    worker/shard/run.py       report   the shard report commits the shard

On its way a row is in these, each made from the one before:

    pyarrow.Table   some rows of a file, from read_files and RowReader
    OwnedRows       the rows among them that the shard owns, with their query groups
    Window          the same, with the rows that get a score and those whose score is known
    PairWindow      the texts that the scorer gets; it gives WindowScores
    Scored          all scored rows of the shard, held by Spill in memory or on disk

Each of the others is one concern of a shard: rejects.py what cannot be scored, poison.py how bad
rows are found, group_checks.py what is wrong with a query group, reuse.py an earlier job's scores,
spill.py rows that wait for their rank, observer.py heartbeats and metrics.
"""
