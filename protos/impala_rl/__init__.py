"""Generated protocol code; made by `make protos`, never edited."""
