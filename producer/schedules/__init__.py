"""Run jobs on cron schedules and account for every due time.

Beat holds one static entry, `rankmill.tick`. Any worker runs the tick. It reads the definitions
from Redis, lists the due times since the previous tick, notes each once, and starts the runs.

- Time zones, missed runs and overlapping runs are plain functions with tests.
- RedBeat forgets a crontab's zone on reload, and everything when Redis is flushed. It restores the
  one entry when it starts.
- Two beats, a redelivery or a tick that died change nothing: a due time is noted once, and its job
  id comes from (schedule, due time).
"""
