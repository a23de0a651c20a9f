"""gRPC parts shared by both sides: channel options, limits, the table of errors."""
