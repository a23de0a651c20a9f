"""gRPC plumbing both sides share: channel options, limits, the table of errors."""
