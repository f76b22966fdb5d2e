"""Jobs that submit themselves by the clock, each due time accounted for.

Beat holds nothing but one static entry, `rankmill.tick`. A tick, which any worker runs, reads the
definitions (ours, in Redis), asks a pure function which due times have passed since the last look,
notes each of them, and starts what is to run. So time zones and their changes, missed and
overlapping runs are plain code with tests; what RedBeat forgets (the zone of a crontab on reload,
and everything when Redis is flushed) it makes again from the entry when it starts; and two beats,
a redelivery or a tick that died half way change nothing, because a due time is noted once and the
job's id comes from (schedule, due time).
"""
