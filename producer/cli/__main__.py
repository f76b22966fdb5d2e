from producer.cli.app import main

main()
