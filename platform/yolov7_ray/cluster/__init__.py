"""Access to Ray: local instance, cluster jobs, and node resources."""
