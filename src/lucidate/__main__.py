"""`python -m lucidate`."""

from lucidate.cli.main import main

if __name__ == "__main__":
    main()
