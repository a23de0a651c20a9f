"""The port: connections, authentication, limits before a servicer sees a call."""
