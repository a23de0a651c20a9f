"""What impala-admin is made of."""
