"""`python -m impala_actor`: the same as impala-actor."""

from impala_actor.cli import main

if __name__ == "__main__":
    main()
