from producer.cli.entry import main

main()
