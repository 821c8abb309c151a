from msfnet.cli import main

main()
