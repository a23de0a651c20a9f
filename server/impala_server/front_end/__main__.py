"""The front-end process: `python -m impala_server.front_end RUN DESCRIPTORS LEVEL FORMAT`.

Started by the supervisor only, with the settings (TOML) on stdin. Ignores signals: the supervisor
handles them and sends "stop" through its pipe. A closed pipe means stop, too.
"""

from __future__ import annotations

import signal
import sys

from impala_common.config.toml_io import parse_config
from impala_common.process import failpoints
from impala_common.process.allocator import keep_large_buffers
from impala_common.process.logs import LogFormat, configure_logging
from impala_common.run.run_directory import RunDirectory
from impala_server.front_end.process import front_end_main
from impala_server.storage.process_ends import ProcessEnds


def main(run_path: str, descriptors: str, log_level: str, log_format: LogFormat) -> None:
    """Runs the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    configure_logging(log_level, "front-end", log_format)
    keep_large_buffers()
    run = RunDirectory(run_path)
    config = parse_config(sys.stdin.read())
    failpoints.arm_from_environment(config.transport.host)
    front_end_main(config, run, ProcessEnds.from_argument(descriptors))


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the supervisor passes a valid format
