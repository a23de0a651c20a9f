"""impala-server as a module, for torchrun: `torchrun --nproc-per-node 2 -m impala_server ...`."""

from impala_server.cli import main

if __name__ == "__main__":
    main()
