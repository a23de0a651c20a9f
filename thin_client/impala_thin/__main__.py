"""`python -m impala_thin` is impala-thin-actor."""

from impala_thin.cli import main

if __name__ == "__main__":
    main()
