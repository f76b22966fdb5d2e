"""Work on tables larger than memory: a scratch database, keys, schemas, shuffles."""
