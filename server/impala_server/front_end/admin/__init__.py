"""The admin service: commands of administrators."""
