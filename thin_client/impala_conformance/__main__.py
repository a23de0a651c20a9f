"""`python -m impala_conformance` is impala-conformance."""

from impala_conformance.cli import main

if __name__ == "__main__":
    main()
