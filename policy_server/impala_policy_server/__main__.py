"""`python -m impala_policy_server` is impala-policy-server."""

from impala_policy_server.cli import main

if __name__ == "__main__":
    main()
