"""Ports: connections, authentication, and limits that apply before a servicer is called."""
