"""`python -m producer.cli`, the same as `rankmill`."""

from producer.cli.entry import main

main()
