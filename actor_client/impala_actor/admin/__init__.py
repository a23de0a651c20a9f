"""Parts of impala-admin."""
