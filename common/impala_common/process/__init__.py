"""What every process needs: logs, exit codes, devices, failpoints."""
